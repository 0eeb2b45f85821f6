"""Deep Q-learning (DQN), by Stable-Baselines3's own loop.

Each training step runs a part of the loop; between two parts, Lightning can save and stop. Together the parts do the
same as one long ``DQN.learn``.
"""

from __future__ import annotations

import math
from collections import deque
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, cast

import stable_baselines3
import torch
from gymnasium import spaces
from lightning.pytorch.core.optimizer import LightningOptimizer
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from torch import nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.argument_checks import COUNT, FRACTION, POSITIVE_FRACTION, POSITIVE_INT, int_up_to
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.seeds import mix_seeds
from rl.envs.checks import BrokenEnvironment
from rl.export import QValues, describe_inputs
from rl.extractors import CoordInit, Where
from rl.learning.rollouts import FinishedGames
from rl.learning.timings import TimedVecEnv
from rl.sb3_internals import start_dqn_learning
from rl.sb3_objects import OptimizerName, Schedule
from rl.tasks.base import COUNTS, RLTask

if TYPE_CHECKING:
    from pathlib import Path

    from stable_baselines3.common.type_aliases import TrainFreq
    from torch.optim import Optimizer

    from rl.evaluation.play import Player

CHUNK = 256
"""Environment steps in a training step: a second or two on a CPU. Signals are handled between training steps."""


class DQN(RLTask):
    """Train a policy by deep Q-learning (Mnih et al., 2015), with the defaults of Stable-Baselines3.

    It trains in one process and in single precision. The replay buffer is not part of a checkpoint, as it takes
    gigabytes. A resumed run first fills a new one with its policy: for learning_starts steps, but at most the buffer's
    size and half of the remaining steps. These steps count like all others.

    Args:
        coords: Coordinates that the policy's convolutions see: "none" (the plain-convolution baseline), "xy", or "xyr"
            with the distance from the centre.
        where: Convolutions that see coordinates: the "first", or "all".
        coord_init: Initial coordinate weights: "random" as in a layer that concatenates coordinates, or "zero", with
            which the policy starts as the plain one.
        coord_scale: Factor of the coordinates: x and y lie in [-coord_scale, coord_scale].
        game: "catch"; an Atari game, such as "pong"; or a Gymnasium environment whose observations are images, or a
            Dict of images and vectors.
        frame_stack: Number of stacked frames in an observation; null: 4 for Atari games, 1 for others.
        full_action_space: Atari: whether to offer all 18 actions instead of those that do something in the game.
        image_size: Atari: height and width of observations, in pixels.
        arguments: Gymnasium: arguments of the environment, such as {continuous: false} of CarRacing. Atari: mode and
            difficulty of the game, such as {mode: 1, difficulty: 2}, which is slower.
        total_timesteps: Steps of all environments in the training.
        buffer_size: Capacity of the replay buffer, in steps of all environments.
        learning_starts: Steps with random actions before the first update.
        batch_size: Transitions in a minibatch.
        tau: Coefficient of the target network's soft updates, in (0, 1]; 1 copies the weights.
        gamma: Discount factor, in [0, 1].
        train_freq: Steps of each environment between updates, at most 100,000.
        gradient_steps: Number of updates after every train_freq steps, at most 100,000.
        target_update_interval: Steps of all environments between updates of the target network.
        exploration_fraction: Fraction of the training in which the exploration rate, the probability of a random
            action, falls from 1.
        exploration_final_eps: Final exploration rate. Evaluations that sample actions use it.
        max_grad_norm: Largest norm of the gradient; a larger gradient is scaled down to it.
        lr: Initial learning rate.
        lr_schedule: Whether the learning rate stays "constant" or falls to 0 over the training ("linear").
        optimizer: "adam", "rmsprop", or "rmsprop_tf", RMSprop as in TensorFlow.
        optimizer_eps: Epsilon in the optimizer's denominator.

    Raises:
        ValueError: An argument is out of its range, or the game's action space is not Discrete.
    """

    ranges = RLTask.ranges | {
        "buffer_size": POSITIVE_INT,
        "learning_starts": COUNT,
        "batch_size": POSITIVE_INT,
        "tau": POSITIVE_FRACTION,
        "train_freq": int_up_to(100_000),
        "gradient_steps": int_up_to(100_000),
        "target_update_interval": POSITIVE_INT,
        "exploration_fraction": POSITIVE_FRACTION,
        "exploration_final_eps": FRACTION,
    }
    changeable_args: ClassVar[frozenset[str]] = (
        RLTask.changeable_args
        | {"buffer_size", "learning_starts", "batch_size", "tau", "train_freq", "gradient_steps"}
        | {"target_update_interval", "exploration_fraction", "exploration_final_eps"}
    )
    allowed_actions = (lambda space: isinstance(space, spaces.Discrete), "Discrete")
    algorithm: stable_baselines3.DQN
    _env: TimedVecEnv | None = None
    _failure: BrokenEnvironment | None = None

    def __init__(
        self,
        coords: Coords = "none",
        where: Where = "first",
        coord_init: CoordInit = "random",
        coord_scale: float = 1.0,
        game: str = "catch",
        frame_stack: int | None = None,
        full_action_space: bool = False,
        image_size: int = 84,
        arguments: dict[str, Any] | None = None,
        total_timesteps: int = 1_000_000,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 32,
        tau: float = 1.0,
        gamma: float = 0.99,
        train_freq: int = 4,
        gradient_steps: int = 1,
        target_update_interval: int = 10_000,
        exploration_fraction: float = 0.1,
        exploration_final_eps: float = 0.05,
        max_grad_norm: float = 10.0,
        lr: float = 1e-4,
        lr_schedule: Schedule = "constant",
        optimizer: OptimizerName = "adam",
        optimizer_eps: float = 1e-8,
    ) -> None:
        super().__init__(coords)  # saves all arguments in self.hparams, from which SB3's DQN gets the others
        self.train_freq = train_freq
        if learning_starts >= total_timesteps:
            raise ValueError(
                f"model.learning_starts={learning_starts}: must be below model.total_timesteps, which is"
                f" {total_timesteps}"
            )
        self.create_algorithm(stable_baselines3.DQN)
        self.algorithm.replay_buffer = None  # created when a training starts
        self.policy.train()  # Lightning warns of networks in evaluation mode, such as SB3's target network
        self.algorithm.q_net_target.requires_grad_(False)  # it follows the other network and is not trained
        self._callback = CallbackList([])
        self._updates_after = 0

    def setup(self, stage: str) -> None:
        """Check that the trainer has one process and single precision."""
        if stage != "fit":
            return
        for name, value in (("devices", self.trainer.num_devices), ("num_nodes", self.trainer.num_nodes)):
            if value > 1:
                raise ValueError(f"trainer.{name}={value}: must be 1 for DQN, which one process trains")
        if self.trainer.precision != "32-true":
            raise ValueError(f"trainer.precision={self.trainer.precision}: must be 32-true for DQN")

    def teardown(self, stage: str) -> None:
        """Close the environments and free the replay buffer."""
        if self._env is not None:
            self._env.close()
            self._env = self.algorithm.env = self.algorithm.replay_buffer = None

    # ----------------------------------------------------------------- training

    def steps_per_training_step(self) -> int:
        """Return about `CHUNK` steps, with whole updates; the last training step may be shorter."""
        unit = self.train_freq * self.data.num_envs
        return math.ceil(min(CHUNK, self.data.steps_per_epoch) / unit) * unit

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Act and learn for a part of the training.

        Where an environment fails, the part ends there, so that its steps are logged and saved before the error.

        Raises:
            UserError: The training has diverged, or the replay buffer does not fit into memory.
        """
        started, end = self.timesteps, min(self.timesteps + self.steps_per_training_step(), self.total_timesteps)
        losses: list[float] = []
        env = self._start() if self._env is None else self._env
        # The games that end in this part.
        self.algorithm.ep_info_buffer, self.algorithm.ep_success_buffer = deque(), deque()
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        own, self.policy.optimizer = self.policy.optimizer, cast("Optimizer", optimizer)  # Lightning counts its steps
        try:
            while self.timesteps < end:
                self._collect(env)
                if self.timesteps > self._updates_after:
                    losses.append(self._learn())
        except BrokenEnvironment as error:
            self._failure = error
        finally:
            self.policy.optimizer = own
        self.rollouts += 1
        self._log(losses, self.timesteps - started)
        self.stop_at_end()

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        """Save the part that ended with a failure, and raise it."""
        self.raise_if_any_failed(self._failure, "batch")

    def on_train_end(self) -> None:
        """Raise the failure that ended the last part, which has been saved."""
        if self._failure is not None:
            raise self._failure

    def _collect(self, env: TimedVecEnv) -> None:
        """Take the steps between two updates."""
        assert self.algorithm.replay_buffer is not None
        waited = self.timings.environment
        with self.timings.measure("acting"):
            self.algorithm.collect_rollouts(
                env,
                self._callback,
                cast("TrainFreq", self.algorithm.train_freq),
                self.algorithm.replay_buffer,
                learning_starts=self.algorithm.learning_starts,
            )
        self.timings.acting -= self.timings.environment - waited

    def _learn(self) -> float:
        """Make updates with steps of the replay buffer; return their mean loss."""
        with self.timings.measure("updating"):
            self.algorithm.train(self.algorithm.gradient_steps, self.algorithm.batch_size)
            loss = float(self.algorithm.logger.name_to_value["train/loss"])
        if not math.isfinite(loss):
            raise self.nan_error()
        return loss

    def _start(self) -> TimedVecEnv:
        """Open the environments, create the replay buffer, and restore the progress of the training."""
        algorithm, data = self.algorithm, self.data
        env = TimedVecEnv(data.open_training_envs(self.game, self.env_options, self.rollouts), self.timings)
        self._env = env
        algorithm.q_net_target.set_training_mode(False)
        algorithm.device, algorithm.n_envs = self.device, data.num_envs
        assert algorithm.replay_buffer_class is not None
        try:
            algorithm.replay_buffer = algorithm.replay_buffer_class(
                algorithm.buffer_size,
                algorithm.observation_space,
                algorithm.action_space,
                device=self.device,
                n_envs=data.num_envs,
            )
        except MemoryError as error:
            raise UserError(f"model.buffer_size={algorithm.buffer_size}: must be smaller: {error}") from error
        algorithm.set_logger(Logger(None, []))
        algorithm.action_space.seed(mix_seeds(data.seed, self.rollouts) % 2**31)
        self._updates_after = algorithm.learning_starts
        if self.timesteps:
            rest = self.total_timesteps - self.timesteps
            refill = min(algorithm.learning_starts, algorithm.buffer_size, rest // 2)
            self._updates_after = max(self._updates_after, self.timesteps + refill)
        start_dqn_learning(algorithm, env, self.total_timesteps, self._callback)
        return env

    def _log(self, losses: list[float], steps: int) -> None:
        """Add a part's games, losses and exploration to the means of the epoch."""
        games = self.algorithm.ep_info_buffer or ()
        successes = [float(success) for success in self.algorithm.ep_success_buffer or ()]
        scores, lengths = [float(game["r"]) for game in games], [int(game["l"]) for game in games]
        self.add_games(FinishedGames(scores, lengths, successes))
        if losses:
            self.add_to_mean("train/loss", sum(losses), len(losses))
        self.add_to_mean("train/exploration", self.algorithm.exploration_rate * torch.tensor(float(steps)), steps)
        if losses and self.is_log_step():
            self.log("train/loss_step", losses[-1], on_step=True, on_epoch=False, batch_size=1)

    # ------------------------------------------------------ evaluation and export

    @property
    def player(self) -> Player:
        """A copy of the algorithm with the final exploration rate, whatever the current one is."""
        player = copy(self.algorithm)
        player.exploration_rate = self.algorithm.exploration_final_eps
        return player

    def export_module(self) -> nn.Module:
        """Return a network from observations to Q-values ``(B, A)`` and the largest ``(B,)``."""
        return QValues(self.algorithm.q_net)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        outputs = {"q_values": "Q-value of each action", "values": "the largest Q-value of each observation"}
        return ExportInterface(describe_inputs(self.observation_space), outputs)

    def export_more(self, folder: Path) -> dict[Path, float]:
        """Write the forms of all methods; in Stable-Baselines3's zip, DQN explores as in evaluations."""
        self.algorithm.exploration_rate = self.algorithm.exploration_final_eps
        return super().export_more(folder)

    # ------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the exploration rate. The replay buffer is not saved."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[COUNTS]["exploration_rate"] = self.algorithm.exploration_rate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the exploration rate."""
        super().on_load_checkpoint(checkpoint)
        self.algorithm.exploration_rate = checkpoint.get(COUNTS, {}).get("exploration_rate", 0.0)

"""Training of DQN by Stable-Baselines3's own loop, in parts between which Lightning can save and stop.

What is learned is what one long ``DQN.learn`` learns, with its schedules. Other than A2C and PPO it is trained by one
process and in single precision, as Stable-Baselines3 does it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from coordconv_apps.training.checkpoints import save_before_error
from coordconv_apps.utils.seeds import mix_seeds
from rl.dqn import QValues, evaluated
from rl.envs.checks import BrokenEnvironment, GuardedVecEnv
from rl.learning.collector import DIVERGED, BrokenTraining
from rl.playing_task import COUNTS, PlayingTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from stable_baselines3 import DQN
    from stable_baselines3.common.type_aliases import TrainFreq
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
    from torch import nn
    from torch.optim import Optimizer

    from coordconv_apps.nn.coords import Coords
    from rl.dqn import DQNSettings
    from rl.evaluation.play import Player
    from rl.learning.collector import Seconds

CHUNK = 256
"""Steps of all environments between two looks at signals: a second or two on a CPU."""


class ReplayTask(PlayingTask):
    """A task that may be of DQN: what is then other than in `PlayingTask`.

    Args:
        coords: As of `PlayingTask`.
        game: Likewise.
        options: Likewise.
        algorithm: Likewise.
        replay: DQN's settings; None for another algorithm.

    Attributes:
        replay: As given.
    """

    def __init__(
        self,
        coords: Coords,
        game: str,
        options: dict[str, Any],
        algorithm: Any,  # noqa: ANN401  # of either kind
        replay: DQNSettings | None,
    ) -> None:
        super().__init__(coords, game, options, algorithm)
        self.replay = replay
        self._failure: BrokenTraining | None = None

    @property
    def dqn(self) -> DQN:
        """Stable-Baselines3's object, if it is this one."""
        return cast("DQN", self.algorithm)

    @property
    def player(self) -> Player:
        """Who plays in evaluations."""
        return super().player if self.replay is None else evaluated(self.dqn)

    def learn_replayed(self, loader: ReplayLoader) -> None:
        """Plays and learns for a part of the training.

        Args:
            loader: Of this training.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        learned = loader.learn(cast("Optimizer", optimizer))
        self.rollouts += 1
        self._failure = loader.failure
        for name, values in (("score", learned.scores), ("length", learned.lengths), ("loss", learned.losses)):
            if values:
                self._add(f"train/{name}", torch.tensor(float(sum(values))), torch.tensor(float(len(values))))
        steps = torch.tensor(float(learned.steps))
        self._add("train/exploration", self.dqn.exploration_rate * steps, steps)
        if self.timesteps >= self.total_timesteps:
            self.trainer.should_stop = True
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the trainer
        if every and self.rollouts % every == 0 and learned.losses:
            self.log("train/loss_step", learned.losses[-1], on_step=True, on_epoch=False, batch_size=1)

    def on_train_end(self) -> None:
        """Raises what ended the last part of a training of DQN; what was learned before is saved by now."""
        super().on_train_end()
        if self._failure is not None:
            raise self._failure

    def export_module(self) -> nn.Module:
        """As of `PlayingTask`; of DQN, its Q-values ``(B, A)`` and the largest ``(B,)``."""
        return super().export_module() if self.replay is None else QValues(self.dqn)

    def export_more(self, folder: Path) -> dict[Path, float]:
        """As of `PlayingTask`; in Stable-Baselines3's zip, DQN plays as it is evaluated here."""
        if self.replay is not None:
            self.dqn.exploration_rate = self.dqn.exploration_final_eps
        return super().export_more(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds DQN's share of random actions. Its replay buffer is not saved."""
        super().on_save_checkpoint(checkpoint)
        if self.replay is not None:
            checkpoint[COUNTS]["exploration_rate"] = self.dqn.exploration_rate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it over."""
        super().on_load_checkpoint(checkpoint)
        if self.replay is not None:
            self.dqn.exploration_rate = checkpoint.get(COUNTS, {}).get("exploration_rate", 0.0)


class Learned(NamedTuple):
    """What came of a part of the training.

    Attributes:
        steps: Steps of all environments.
        scores: Of the games that came to their end, not clipped.
        lengths: Of these games, as the environments tell them.
        losses: Mean loss, each time that was learned.
    """

    steps: int
    scores: list[float]
    lengths: list[int]
    losses: list[float]


class ReplayLoader:
    """The training of a ``DQN`` in parts: a batch of this loader is the loader itself, which learns when told to.

    The replay buffer is no part of a checkpoint, as it takes gigabytes. A run that is resumed fills a new one with what
    its policy does before it learns again: for ``learning_starts`` steps, but no more than there is room for, and than
    half of what is left of the training. These steps count as all do.

    Args:
        task: Whose policy learns.
        settings: Its settings.
        open_envs: Makes the environments.
        num_envs: How many there are.
        seed: Fixes random actions.
        steps_per_epoch: Steps of all environments in an epoch, rounded up to whole parts.

    Attributes:
        chunk: Steps of all environments in a part; the last part of a training may be shorter.
        failure: Why the training cannot go on; None if it can.
    """

    def __init__(
        self,
        task: ReplayTask,
        settings: DQNSettings,
        open_envs: Callable[[], VecEnv],
        *,
        num_envs: int,
        seed: int,
        steps_per_epoch: int,
    ) -> None:
        self.task, self.settings = task, settings
        self.algorithm = task.dqn
        self.open_envs, self.num_envs, self.seed = open_envs, num_envs, seed
        self.chunk = chunk_steps(settings, num_envs, steps_per_epoch)
        self.length = -(-steps_per_epoch // self.chunk)
        self.failure: BrokenTraining | None = None
        self._env: _TimedVecEnv | None = None
        self._watch = _Watch()
        self._learns_after = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[ReplayLoader]:
        for _ in range(self.length):
            if self.failure is not None:
                save_before_error(self.task.trainer, "batch")
                raise self.failure
            yield self

    def state_dict(self) -> dict[str, Any]:
        """Nothing: all that counts is the task's. That there is a state tells Lightning to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Closes the environments, and gives the replay buffer's memory back."""
        if self._env is not None:
            self._env.close()
            self._env = self.algorithm.env = self.algorithm.replay_buffer = None

    def learn(self, optimizer: Optimizer) -> Learned:
        """Plays and learns for a part of the training, as ``DQN.learn`` does.

        Args:
            optimizer: Takes the steps: the policy's own, or what Lightning has made of it to count them.

        Raises:
            BrokenTraining: The policy does not predict finite numbers any more, or the replay buffer is too large.
        """
        algorithm, seconds, losses = self.algorithm, self.task.seconds, []
        begun = algorithm.num_timesteps
        self._watch.scores, self._watch.lengths = [], []
        own, algorithm.policy.optimizer = algorithm.policy.optimizer, optimizer
        try:
            if self._env is None:
                self._begin()
            end = min(begun + self.chunk, self.task.total_timesteps)
            while algorithm.num_timesteps < end:
                self._play(seconds)
                if algorithm.num_timesteps > self._learns_after:
                    started = time.perf_counter()
                    algorithm.train(self.settings.gradient_steps, self.settings.batch_size)
                    losses.append(float(algorithm.logger.name_to_value["train/loss"]))
                    seconds.updating += time.perf_counter() - started
                    if not math.isfinite(losses[-1]):
                        raise BrokenTraining(DIVERGED)
        except BrokenEnvironment as error:
            # What was learned before is saved between two batches: see __iter__.
            self.failure = BrokenTraining(str(error))
        finally:
            algorithm.policy.optimizer = own
        return Learned(algorithm.num_timesteps - begun, self._watch.scores, self._watch.lengths, losses)

    def _play(self, seconds: Seconds) -> None:
        """The steps between two updates."""
        algorithm, env = self.algorithm, self._env
        assert env is not None
        assert algorithm.replay_buffer is not None
        started, waited = time.perf_counter(), seconds.environment
        algorithm.collect_rollouts(
            env,
            self._watch,
            cast("TrainFreq", algorithm.train_freq),
            algorithm.replay_buffer,
            learning_starts=self.settings.learning_starts,
        )
        seconds.acting += time.perf_counter() - started - (seconds.environment - waited)

    def _begin(self) -> None:
        """Opens the environments and makes the replay buffer, where the policy is by now."""
        algorithm, task, settings = self.algorithm, self.task, self.settings
        self._env = _TimedVecEnv(self.open_envs(), task.game, task.seconds)
        algorithm.q_net_target.set_training_mode(False)
        algorithm.device, algorithm.n_envs = task.device, self.num_envs
        spaces_of = (algorithm.observation_space, algorithm.action_space)
        try:
            algorithm.replay_buffer = ReplayBuffer(
                settings.buffer_size, *spaces_of, device=task.device, n_envs=self.num_envs
            )
        except MemoryError as error:
            raise BrokenTraining(f"model.buffer_size={settings.buffer_size}: must be smaller: {error}") from error
        algorithm.set_env(self._env)
        algorithm.set_logger(Logger(None, []))
        algorithm.action_space.seed(mix_seeds(self.seed, task.rollouts) % 2**31)
        done = algorithm.num_timesteps
        algorithm._n_calls = done // self.num_envs
        self._learns_after = settings.learning_starts
        if done:
            refill = min(settings.learning_starts, settings.buffer_size, (task.total_timesteps - done) // 2)
            self._learns_after = max(self._learns_after, done + refill)
        # Schedules are those of a single `learn` to the end.
        algorithm._setup_learn(task.total_timesteps - done, self._watch, reset_num_timesteps=False)


def chunk_steps(settings: DQNSettings, num_envs: int, steps_per_epoch: int) -> int:
    """Steps of all environments in a part of a training: about `CHUNK`, with whole updates."""
    unit = settings.train_freq * num_envs
    return -(-min(CHUNK, steps_per_epoch) // unit) * unit


class _Watch(BaseCallback):
    """Takes note of games that are over."""

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[float] = []
        self.lengths: list[int] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if (episode := info.get("episode")) is not None:
                self.scores.append(float(episode["r"]))
                self.lengths.append(int(episode["l"]))
        return True


class _TimedVecEnv(GuardedVecEnv):
    """Takes note of the time that is waited for environments."""

    def __init__(self, venv: VecEnv, game: str, seconds: Seconds) -> None:
        super().__init__(venv, game)
        self.seconds = seconds

    def reset(self) -> VecEnvObs:
        """Resets the environments."""
        started = time.perf_counter()
        observations = super().reset()
        self.seconds.environment += time.perf_counter() - started
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a step."""
        started = time.perf_counter()
        super().step_async(actions)
        self.seconds.environment += time.perf_counter() - started

    def step_wait(self) -> VecEnvStepReturn:
        """Waits for a step."""
        started = time.perf_counter()
        result = super().step_wait()
        self.seconds.environment += time.perf_counter() - started
        return result

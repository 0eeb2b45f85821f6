"""Training of policies by reinforcement learning."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.utils.argument_checks import check_ranges
from coordconv_apps.utils.seeds import mix_seeds
from rl.algorithms import ALLOWED, Decay, OptimizerName, build, choose, refuse
from rl.dqn import build_dqn, check_dqn, choose_dqn
from rl.envs.games import open_envs
from rl.extractors import CoordInit, Where
from rl.learning.actions import ORDER, assess, generator
from rl.learning.advantages import Rollout
from rl.learning.losses import MEASURES, Measures, a2c_loss, ppo_loss
from rl.learning.minibatches import Batch, batches, whole
from rl.replay import ReplayLoader, ReplayTask, chunk_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gymnasium import spaces
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch.optim import Optimizer

    from rl.algorithms import Settings
    from rl.dqn import DQNSettings


class RLTask(ReplayTask):
    """Learning to play: A2C (Mnih et al., 2016), PPO (Schulman et al., 2017) or DQN (Mnih et al., 2015).

    All are as Stable-Baselines3 has them. The settings have its names and, where they are null, its defaults. Whatever
    counts steps, environments or samples counts those of all processes together: their number changes the speed only.
    DQN is trained by Stable-Baselines3's own loop, in one process and in single precision: what is said of rollouts
    is, with it, true of parts of some hundred steps (`rl.replay.ReplayLoader`).

    Args:
        coords: Coordinates that the policy's convolutions see: "none" is the plain-convolution baseline, "xy", or "xyr"
            with the distance from the centre.
        where: Which of the convolutions see them: the "first", or "all".
        coord_init: How coordinate weights start: "random" as in a layer that concatenates coordinates, or "zero":
            the policy is at first the plain one.
        game: "catch"; a game of Atari's, such as "pong"; or a Gymnasium environment that shows images.
        frame_stack: Latest frames that an observation holds. Null: 4 for Atari's games, 1 for others.
        full_action_space: Atari: all 18 actions, in place of those that do something in the game.
        image_size: Atari: height and width of observations, in pixels.
        arguments: Gymnasium: arguments of the environment, such as {continuous: false} of CarRacing.
        algorithm: "a2c", "ppo" or "dqn".
        total_timesteps: Steps of all environments in the training. It ends with the rollout that completes them.
        n_steps: A2C and PPO: steps of each environment in a rollout.
        n_epochs: PPO: how often each sample of a rollout is learned from.
        batch_size: PPO: samples in an update. It divides n_steps times data.num_envs. DQN: steps in an update.
        gamma: Discount of a step, in [0, 1].
        gae_lambda: A2C and PPO: weight of later differences in the advantages, in [0, 1]; with 1 they are returns minus
            values.
        ent_coef: A2C and PPO: weight of the entropy in the loss.
        vf_coef: A2C and PPO: weight of the values' squared error in the loss.
        max_grad_norm: Norm that gradients are clipped to.
        normalize_advantage: A2C and PPO: whether advantages are normalised in each batch.
        target_kl: PPO: the rest of a rollout is left out when a batch finds the policy 1.5 times as far, in nats, from
            the one that played.
        clip_range: PPO: how far the ratio of probabilities counts from 1.
        clip_schedule: PPO: whether that is "constant", or falls to 0 over the training ("linear").
        clip_range_vf: PPO: the same for the values; null is without bounds.
        buffer_size: DQN: latest steps of all environments that are learned from.
        learning_starts: DQN: steps that are played at random before anything is learned. A run that is resumed plays as
            many with its policy, to have something to learn from.
        tau: DQN: how far the target network follows each time, in (0, 1]; 1 makes it a copy.
        train_freq: DQN: steps of each environment between updates.
        gradient_steps: DQN: updates each time.
        target_update_interval: DQN: steps of all environments after which the target network follows.
        exploration_fraction: DQN: part of the training in which the share of random actions falls from 1.
        exploration_final_eps: DQN: what it falls to. Evaluations that draw actions have this share from the beginning.
        lr: Learning rate at the beginning, above 0.
        lr_schedule: Whether that is "constant", or falls to 0 over the training ("linear").
        optimizer: "adam", "rmsprop", or "rmsprop_tf", which is TensorFlow's.
        optimizer_eps: What the optimizer adds to the denominator.

    Attributes:
        settings: The settings of A2C or PPO.
        replay: Those of DQN, or None.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"total_timesteps", "n_epochs", "batch_size", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"}
        | {"normalize_advantage", "target_kl", "clip_range", "clip_schedule", "clip_range_vf", "lr", "lr_schedule"}
        | {"buffer_size", "learning_starts", "tau", "train_freq", "gradient_steps", "target_update_interval"}
        | {"exploration_fraction", "exploration_final_eps"}
    )
    settings: Settings

    def __init__(
        self,
        coords: Coords = "none",
        where: Where = "first",
        coord_init: CoordInit = "random",
        game: str = "catch",
        frame_stack: int | None = None,
        full_action_space: bool = False,
        image_size: int = 84,
        arguments: dict[str, Any] | None = None,
        algorithm: Literal["a2c", "ppo", "dqn"] = "a2c",
        total_timesteps: int = 1_000_000,
        n_steps: int | None = None,
        n_epochs: int | None = None,
        batch_size: int | None = None,
        gamma: float | None = None,
        gae_lambda: float | None = None,
        ent_coef: float | None = None,
        vf_coef: float | None = None,
        max_grad_norm: float | None = None,
        normalize_advantage: bool | None = None,
        target_kl: float | None = None,
        clip_range: float | None = None,
        clip_schedule: Decay | None = None,
        clip_range_vf: float | None = None,
        buffer_size: int | None = None,
        learning_starts: int | None = None,
        tau: float | None = None,
        train_freq: int | None = None,
        gradient_steps: int | None = None,
        target_update_interval: int | None = None,
        exploration_fraction: float | None = None,
        exploration_final_eps: float | None = None,
        lr: float | None = None,
        lr_schedule: Decay | None = None,
        optimizer: OptimizerName | None = None,
        optimizer_eps: float | None = None,
    ) -> None:
        given = dict(locals())
        check_ranges(given, {name: ALLOWED[name] for name in ("total_timesteps", "image_size")})
        refuse(algorithm, given)
        settings: Settings | None = None
        replay: DQNSettings | None = None
        make: Callable[..., Any]
        if algorithm == "dqn":
            replay = choose_dqn(given)
            make = partial(build_dqn, replay)
        else:
            settings = choose(algorithm, given)
            make = partial(build, algorithm, settings)
        options = {
            "frame_stack": frame_stack,
            "full_action_space": full_action_space,
            "image_size": image_size,
            "arguments": arguments or {},
        }
        env = open_envs(game, 1, 0, options)
        observation_space, action_space = cast("spaces.Box", env.observation_space), env.action_space
        env.close()
        made = make(observation_space, action_space, coords=coords, where=where, coord_init=coord_init)
        super().__init__(coords, game, options, made, replay)
        self.save_hyperparameters()
        if settings is not None:
            self.settings = settings
        self.total_timesteps = total_timesteps
        self.algorithm_name = algorithm
        self.measures = MEASURES if algorithm == "ppo" else MEASURES[:4]
        self.automatic_optimization = False  # a batch is a rollout, and a rollout is many updates

    def setup(self, stage: str) -> None:
        """Checks that rollouts can be cut into batches, or that this trainer can train DQN.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: They cannot.
        """
        if stage != "fit":
            return
        if isinstance(self.trainer.strategy, DDPStrategy):
            # Every update uses all parameters; to look for others, which the command line asks for, takes time.
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = False
        if self.replay is not None:
            check_dqn(self.trainer)
            return
        samples, size = self.settings.n_steps * self._data().num_envs, self.settings.batch_size
        if size is not None and samples % size:
            raise ValueError(
                f"model.batch_size={size}: must divide model.n_steps times data.num_envs, which is {samples}"
            )
        if samples == 1 and self.settings.normalize_advantage:
            raise ValueError("model.n_steps=1: must be at least 2 with data.num_envs=1 and normalize_advantage")

    # ---------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Ends a training that has all its steps already, and knows in which epoch the others will."""
        if self.global_rank:  # actions that have no noise of their own are drawn anew by each process
            torch.manual_seed(mix_seeds(torch.initial_seed(), self.global_rank))
        super().on_train_start()
        left = -(-(self.total_timesteps - self.timesteps) // self._samples())
        if left <= 0:
            self.trainer.should_stop = True
        loop = self.trainer.fit_loop
        assert isinstance(loop.max_epochs, int)
        begun = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        epochs = self.trainer.current_epoch + math.ceil((begun + left) / self.trainer.num_training_batches)
        loop.max_epochs = max(epochs, 1) if loop.max_epochs < 0 else min(loop.max_epochs, max(epochs, 1))
        self._epoch_began = (time.perf_counter(), self.timesteps)

    def _samples(self) -> int:
        """Samples of a rollout, of all processes."""
        if self.replay is not None:
            return chunk_steps(self.replay, self._data().num_envs, self._data().steps_per_epoch)
        return self.settings.n_steps * self._data().num_envs

    def training_step(self, batch: Rollout | ReplayLoader, batch_idx: int) -> None:
        """Learns from a rollout.

        The gradients of each update are averaged over the processes: this is called by DistributedDataParallel.

        Args:
            batch: What was played last; DQN plays while it learns.
            batch_idx: The number of the rollout in its epoch.
        """
        if isinstance(batch, ReplayLoader):
            self.learn_replayed(batch)
            return
        began = time.perf_counter()
        self.seen = batch.observations[-1]
        self.policy.set_training_mode(True)
        self.algorithm._update_current_progress_remaining(self.timesteps, self.total_timesteps)
        measured = torch.stack([torch.stack(measures) for measures in self._learn(batch)]).mean(0)
        samples = torch.tensor(float(batch.advantages.numel()))
        values = {f"train/{name}": value for name, value in zip(self.measures, measured, strict=False)}
        for name, value in values.items():
            self._add(name, value * samples, samples)
        if self.timesteps >= self.total_timesteps:
            self.trainer.should_stop = True
        self.seconds.updating += time.perf_counter() - began
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by the trainer
        if every and self.rollouts % every == 0:
            steps = {f"{name}_step": value for name, value in values.items()}
            self.log_dict(steps, on_step=True, on_epoch=False, batch_size=1)

    def _learn(self, rollout: Rollout) -> Iterator[Measures]:
        """The updates of a rollout, what is measured at each of them."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for group in optimizer.param_groups:
            group["lr"] = self.algorithm.lr_schedule(self.algorithm._current_progress_remaining)
        numbers = generator(self._data().seed, self.rollouts, ORDER)
        for _ in range(self.settings.n_epochs):
            for batch in self._batches(rollout, numbers):
                measures = self._step(batch)
                yield Measures(*(value.detach() for value in measures))
                if self._too_far(measures.approx_kl):
                    self.algorithm._n_updates += 1
                    return
                optimizer.zero_grad()
                self.manual_backward(measures.loss)
                optimizer.step()
            self.algorithm._n_updates += 1

    def _batches(self, rollout: Rollout, numbers: torch.Generator) -> Iterator[Batch]:
        """One pass over a rollout."""
        normalize, world_size = self.settings.normalize_advantage, self.trainer.world_size
        if self.settings.batch_size is None:
            return iter([whole(rollout, normalize_advantage=normalize, world_size=world_size)])
        order = torch.randperm(rollout.advantages.numel(), generator=numbers)
        return batches(rollout, order, self.settings.batch_size, normalize_advantage=normalize, world_size=world_size)

    def _step(self, batch: Batch) -> Measures:
        """The loss of a batch, and its parts."""
        predicted = assess(self.policy, batch.observations, batch.actions)
        weights = {"ent_coef": self.settings.ent_coef, "vf_coef": self.settings.vf_coef}
        if self.algorithm_name == "a2c":
            return a2c_loss(predicted, batch, **weights)
        clip_range = self.settings.clip_range
        if self.settings.clip_schedule == "linear":
            clip_range *= max(self.algorithm._current_progress_remaining, 0.0)  # below 0 in the last rollout
        return ppo_loss(predicted, batch, clip_range=clip_range, clip_range_vf=self.settings.clip_range_vf, **weights)

    def _too_far(self, approx_kl: Tensor) -> bool:
        """Whether the policy has come too far from the one that played: for all processes alike."""
        if self.settings.target_kl is None:
            return False
        mean = self.trainer.strategy.reduce(approx_kl.detach().clone(), reduce_op="mean")
        return float(mean) > 1.5 * self.settings.target_kl

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips the gradients; those of half precision are no longer scaled by now.

        Args:
            optimizer: The policy's.
        """
        if self.replay is None:  # DQN does so by itself
            nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The policy's own optimizer: it is the one that ``export`` saves."""
        optimizer = self.policy.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.settings.lr if self.replay is None else self.replay.lr
        return optimizer

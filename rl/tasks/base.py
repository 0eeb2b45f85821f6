"""Base task for RL: arguments, counters, logging, export, checkpoints."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.training.trainer_access import log_interval
from coordconv_apps.utils.argument_checks import (
    COUNT,
    FRACTION,
    POSITIVE,
    POSITIVE_INT,
    Allowed,
    at_least,
    check_saved,
    one_of,
)
from coordconv_apps.utils.errors import one_line
from rl.envs.actions import has_supported_actions
from rl.envs.game_options import GameOptions
from rl.envs.games import open_envs
from rl.envs.images import SMALLEST_IMAGE
from rl.export import LogitsAndValues, describe_inputs, example_observations, export_policy
from rl.learning.timings import Timings
from rl.observations import map_parts
from rl.sb3_internals import get_updates, set_updates
from rl.sb3_objects import OptimizerName, Schedule, build_algorithm
from rl.tasks.evaluation import EpisodeEvaluation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rl.learning.rollouts import FinishedGames

COUNTS = "rl"  # key of the counters in a checkpoint


class RLTask(EpisodeEvaluation):
    """Base class of the RL tasks: policy, Stable-Baselines3's algorithm object, counters of the training.

    The arguments of a subclass include those that this class reads from ``self.hparams``. A subclass calls
    `create_algorithm` in ``__init__``, and trains in ``training_step``.

    Args:
        coords: Coordinates that the policy's convolutions see.

    Attributes:
        allowed_actions: Allowed action spaces of the game.
        algorithm: Stable-Baselines3's object.
        rollouts: Number of training steps so far; each is a rollout, or with DQN about `rl.tasks.dqn.CHUNK` steps.
        timings: Time spent so far.
    """

    replaced_trainer_args: ClassVar[Mapping[str, str]] = {"gradient_clip_val": "model.max_grad_norm"}
    find_unused_parameters: ClassVar[bool | None] = False  # every update uses all parameters
    precisions = ("32-true", "16-mixed", "bf16-mixed")  # probabilities and losses need float32
    import_args: ClassVar[frozenset[str]] = frozenset({"game"})  # Gymnasium's module:name
    epoch_line = (
        "train/timesteps",
        "train/score",
        "train/loss",
        "val/score",
        "val/human_normalised",
        "val/success_rate",
        "time/fps",
    )
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"total_timesteps", "gamma", "max_grad_norm", "lr", "lr_schedule"}
    )
    ranges: ClassVar[dict[str, Allowed]] = {
        "coord_scale": POSITIVE,
        "frame_stack": POSITIVE_INT,
        "image_size": at_least(SMALLEST_IMAGE),
        "total_timesteps": POSITIVE_INT,
        "gamma": FRACTION,
        "max_grad_norm": POSITIVE,
        "lr": POSITIVE,
        "lr_schedule": one_of(Schedule),
        "optimizer": one_of(OptimizerName),
        "optimizer_eps": POSITIVE,
    }
    allowed_actions: ClassVar[Allowed] = (
        has_supported_actions,
        "Discrete, MultiDiscrete or MultiBinary of one axis, or a Box of floating-point numbers",
    )

    def __init__(self, coords: Coords) -> None:
        super().__init__(coords)
        self.game = self.hparams["game"]
        self.env_options = GameOptions(
            frame_stack=self.hparams["frame_stack"],
            full_action_space=self.hparams["full_action_space"],
            image_size=self.hparams["image_size"],
            arguments=self.hparams["arguments"] or {},
        )
        self.total_timesteps: int = self.hparams["total_timesteps"]
        env = open_envs(self.game, 1, 0, self.env_options)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        env.close()
        is_allowed, words = self.allowed_actions
        if not is_allowed(self.action_space):
            found = one_line(str(self.action_space))
            raise ValueError(f"model.game={self.game}: actions are {found}: must be {words} for {type(self).__name__}")
        self.automatic_optimization = False  # a training step makes many updates
        self.timings = Timings()
        self.rollouts = 0
        self._epoch_started = (0.0, 0)

    def create_algorithm(self, kind: type[A2C | PPO | DQN], **arguments: Any) -> None:  # noqa: ANN401  # SB3's
        """Create Stable-Baselines3's object with its policy and optimizer, as `rl.sb3_objects.build_algorithm` does."""
        spaces = self.observation_space, self.action_space
        self.algorithm: BaseAlgorithm = build_algorithm(kind, *spaces, self.hparams, **arguments)
        # With channels last, the backward pass of the convolutions takes two thirds of the time.
        self.policy = self.algorithm.policy.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the policy's own optimizer, which ``export`` saves with the algorithm."""
        optimizer = self.policy.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.hparams["lr"]
        return optimizer

    # ---------------------------------------------------------------- counters

    @property
    def timesteps(self) -> int:
        """Steps taken so far, in all environments."""
        return self.algorithm.num_timesteps

    @property
    def updates(self) -> int:
        """Updates so far, as Stable-Baselines3 counts them: passes over a rollout, or DQN's gradient steps."""
        return get_updates(self.algorithm)

    def steps_per_training_step(self) -> int:
        """Return the number of environment steps in one training step, over all ranks."""
        raise NotImplementedError

    def on_train_start(self) -> None:
        """Set the epoch in which the training ends, and stop a resumed training that has all its steps."""
        super().on_train_start()
        if self.timesteps >= self.total_timesteps and self.trainer.is_global_zero:
            done = f"{self.timesteps} timesteps are done"
            print(f"nothing to do: {done}, and model.total_timesteps={self.total_timesteps}")
        self.stop_at_end()
        left = math.ceil((self.total_timesteps - self.timesteps) / self.steps_per_training_step())
        loop = self.trainer.fit_loop
        assert isinstance(loop.max_epochs, int)
        done_in_epoch = loop.epoch_loop.batch_progress.current.ready if loop.restarting else 0
        epochs = self.trainer.current_epoch + math.ceil((done_in_epoch + left) / self.trainer.num_training_batches)
        loop.max_epochs = max(epochs, 1) if loop.max_epochs < 0 else min(loop.max_epochs, max(epochs, 1))
        self._epoch_started, self.evaluation_seconds = (time.perf_counter(), self.timesteps), 0.0

    def stop_at_end(self) -> None:
        """Stop the trainer once all steps are done."""
        if self.timesteps >= self.total_timesteps:
            self.trainer.should_stop = True
            self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True  # the epoch is whole, only shorter

    # ---------------------------------------------------------------- logging

    def add_games(self, games: FinishedGames) -> None:
        """Add the games that ended in a training step, or none, to the means of the epoch. All ranks call it."""
        self.add_to_mean("train/score", sum(games.scores), len(games.scores))
        self.add_to_mean("train/length", sum(games.lengths), len(games.lengths))
        self.add_to_mean("train/success_rate", sum(games.successes), len(games.successes))

    def is_log_step(self) -> bool:
        """Return whether ``trainer.log_every_n_steps`` asks for the values of this training step."""
        every = log_interval(self.trainer)
        return every > 0 and self.rollouts % every == 0

    def on_train_epoch_end(self) -> None:
        """Log the means over the epoch and all ranks, and the timings."""
        super().on_train_epoch_end()
        now, (started, timesteps) = time.perf_counter(), self._epoch_started
        values = {
            "train/timesteps": float(self.timesteps),
            "lr": float(self.policy.optimizer.param_groups[0]["lr"]),
            "time/fps": (self.timesteps - timesteps) / (now - started - self.evaluation_seconds),
            "time/acting": self.timings.acting,
            "time/environment": self.timings.environment,
            "time/updating": self.timings.updating,
        }
        for name, value in values.items():
            self.log_epoch(name, value)
        self._epoch_started, self.evaluation_seconds = (now, self.timesteps), 0.0

    # ------------------------------------------------------------------ export

    def export_module(self) -> nn.Module:
        """Return a network from observations to logits ``(B, A)`` and values ``(B,)``."""
        return LogitsAndValues(self.policy)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        continuous = isinstance(self.policy.action_space, spaces.Box)
        actions = {"means": "of the actions"} if continuous else {"logits": "of the actions"}
        return ExportInterface(
            describe_inputs(self.observation_space), actions | {"values": "the critic's value of each observation"}
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two random observations, one tensor for each part of a Dict."""
        observations = map_parts(lambda part: part.to(self.device), example_observations(self.observation_space, 2))
        return tuple(observations.values()) if isinstance(observations, dict) else (observations,)

    def export_more(self, folder: Path) -> dict[Path, float]:
        """Write the zips of `rl.export.export_policy`, and compare their logits."""
        return export_policy(self.algorithm, folder)

    # ------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counters. Environments are not saved: a resumed run starts new episodes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[COUNTS] = {
            "rollouts": self.rollouts,
            "timesteps": self.timesteps,
            "updates": self.updates,
            "timings": dict(vars(self.timings)),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters, and the optimizer's state, with which Stable-Baselines3 continues after an export."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("optimizer_states"):
            self.policy.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        counts = checkpoint.get(COUNTS, {})
        check_saved(counts, dict.fromkeys(("rollouts", "timesteps", "updates"), COUNT))
        self.rollouts = counts.get("rollouts", 0)
        self.algorithm.num_timesteps = counts.get("timesteps", 0)
        set_updates(self.algorithm, counts.get("updates", 0))
        self.timings = Timings(**counts.get("timings", {}))

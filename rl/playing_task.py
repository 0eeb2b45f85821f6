"""What tasks of reinforcement learning have apart from learning: counts, logs, evaluation and checkpoints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.checkpoints import save_before_error
from coordconv_apps.training.task import Task
from coordconv_apps.utils.distributed import gather_ranks
from rl.envs.checks import BrokenEnvironment
from rl.evaluation.episodes import EpisodeScores, gather_episodes
from rl.learning.actions import values_and_logits
from rl.learning.advantages import explained_variance
from rl.learning.collector import DIVERGED, BrokenTraining, Seconds, diverging
from rl.policy_files import export_safe, export_zip, load_safe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy

    from rl.data import EpisodeNumbers, RLData, Split
    from rl.evaluation.episodes import Episodes, EpisodeShard
    from rl.evaluation.play import Player
    from rl.learning.collector import Played

COUNTS = "rl"
"""Where a checkpoint holds the counts of a training."""

MEANS = ("train/score", "train/length", "train/explained_variance")
"""What is logged of a training's games as a mean over an epoch."""


class PlayingTask(Task):
    """A policy that plays a game, and an account of it.

    Args:
        coords: Coordinates that the policy sees.
        game: Its name, as of `rl.envs.games.make_envs`.
        options: How it is shown to the policy, of `rl.envs.games.GameOptions`.
        algorithm: Stable-Baselines3's object, with the policy and its optimizer.

    Attributes:
        algorithm: As given.
        policy: The algorithm's policy.
        rollouts: How many have been played.
        seconds: Where the time went.
        seen: Some of the latest observations, uint8 ``(N, C, H, W)``; None before the first ones.
        shown: The episodes of the last evaluation, of all processes; None before the first one.
        total_timesteps: Steps of all environments after which the training ends.
    """

    monitor: ClassVar[str] = "val/score"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    replaced_trainer_args: ClassVar[Mapping[str, str]] = {"gradient_clip_val": "model.max_grad_norm"}
    precisions = ("32-true", "16-mixed", "bf16-mixed")  # images are brought into single precision
    total_timesteps: int

    def __init__(self, coords: Coords, game: str, options: dict[str, Any], algorithm: OnPolicyAlgorithm) -> None:
        super().__init__(coords)
        self.game = game
        self.options = options
        self.algorithm = algorithm
        # Convolutions go backward in two thirds of the time with channels last.
        self.policy: ActorCriticPolicy = algorithm.policy.to(memory_format=torch.channels_last)
        self.seconds = Seconds()
        self.rollouts = 0
        self.episodes = nn.ModuleDict({part: EpisodeScores() for part in ("val", "test")})
        self.seen: Tensor | None = None
        self.shown: Episodes | None = None
        self._own: Episodes | None = None
        self._epoch_began = (0.0, 0)

    @property
    def timesteps(self) -> int:
        """How many steps of all environments have been taken."""
        return self.algorithm.num_timesteps

    @property
    def player(self) -> Player:
        """Who plays in evaluations."""
        return self.policy

    def _data(self) -> RLData:
        data: RLData = self.trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        return data

    def on_train_start(self) -> None:
        """Says so if a run that is resumed has all its steps already."""
        super().on_train_start()
        if self.timesteps >= self.total_timesteps and self.trainer.is_global_zero:
            done = f"{self.timesteps} timesteps are done"
            print(f"nothing to do: {done}, and model.total_timesteps={self.total_timesteps}")

    # ----------------------------------------------------------------- logging

    def count(self, played: Played, gathered: Tensor) -> None:
        """Counts a rollout that was played.

        Args:
            played: By this process.
            gathered: Advantages and values of all processes, ``(2, T, E)``.
        """
        self.rollouts += 1
        self.algorithm.num_timesteps += gathered[0].numel()
        for name, values in (("train/score", played.scores), ("train/length", played.lengths)):
            if values:
                self._add(name, torch.tensor(float(sum(values))), torch.tensor(float(len(values))))
        explained = explained_variance(gathered[1], gathered.sum(0))
        known = explained.isfinite()
        self._add("train/explained_variance", explained.nan_to_num(), known)

    def _add(self, name: str, total: Tensor, weight: Tensor) -> None:
        """Adds to the mean of an epoch. Unlike `log_train` it logs nothing at once: that would take as long as a step.

        Args:
            name: Of the metric.
            total: Sum of the values, a scalar.
            weight: How many values that were.
        """
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        if name not in self._train_sums:
            self._train_sums[name] = torch.zeros(2, dtype=precise, device=self.device)
        self._train_sums[name] += torch.stack([total.to(self.device, precise), weight.to(self.device, precise)])

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch, over all processes, and where the time went.

        Raises:
            BrokenTraining: The policy does not predict finite numbers any more. It is not saved.
        """
        with torch.no_grad():
            sound = self.seen is None or all(
                bool(part.isfinite().all()) for part in values_and_logits(self.policy, self.seen)
            )
        if not all(gather_ranks(sound)):
            raise BrokenTraining(DIVERGED)
        nothing = torch.zeros(())
        for name in MEANS:
            self._add(name, nothing, nothing)  # every process has all of them
        sums = torch.stack([self._train_sums.pop(name) for name in MEANS])
        for name, (total, weight) in zip(
            MEANS, self.trainer.strategy.reduce(sums, reduce_op="sum").tolist(), strict=True
        ):
            if weight:  # of no game that has come to its end there is no score
                self.log(name, total / weight, sync_dist=True)
        super().on_train_epoch_end()
        now, (began, timesteps) = time.perf_counter(), self._epoch_began
        values = {
            "train/timesteps": float(self.timesteps),
            "lr": float(self.policy.optimizer.param_groups[0]["lr"]),
            "time/fps": (self.timesteps - timesteps) / (now - began),
            "time/acting": self.seconds.acting,
            "time/environment": self.seconds.environment,
            "time/updating": self.seconds.updating,
        }
        self.log_dict(values, sync_dist=True)
        self._epoch_began = (now, self.timesteps)

    # -------------------------------------------------------------- evaluation

    def validation_step(self, batch: EpisodeShard, batch_idx: int) -> None:
        """Plays this process's episodes of a validation."""
        self._evaluate(batch, "val")

    def test_step(self, batch: EpisodeShard, batch_idx: int) -> None:
        """Plays this process's episodes of a test."""
        self._evaluate(batch, "test")

    def _evaluate(self, share: EpisodeShard, part: Split) -> None:
        began, failure = time.perf_counter(), None
        try:
            with torch.autocast(self.device.type, enabled=False), diverging():  # as films and predictions
                self._own = self._data().evaluate(self, share, part)
        except BrokenEnvironment as error:
            failure = BrokenTraining(f"{error} (in an evaluation)")
        except BrokenTraining as error:
            failure = error
        self._stop_if_broken(failure)
        assert self._own is not None
        cast("EpisodeScores", self.episodes[part]).update(self._own)
        # An evaluation is not part of the training's speed.
        self._epoch_began = (self._epoch_began[0] + time.perf_counter() - began, self._epoch_began[1])

    def _stop_if_broken(self, failure: BrokenTraining | None) -> None:
        """Saves what was learned, if it is of use, and raises the failure of any process. All call it together."""
        messages = [message for message in gather_ranks(None if failure is None else str(failure)) if message]
        if not messages:
            return
        if DIVERGED not in messages:
            save_before_error(self.trainer, "validation")
        raise failure or BrokenTraining(messages[0])

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of a validation."""
        self._log_episodes("val")

    def on_test_epoch_end(self) -> None:
        """Logs the figures of a test."""
        self._log_episodes("test")

    def _log_episodes(self, part: Split) -> None:
        metric = cast("EpisodeScores", self.episodes[part])
        figures = metric.compute()
        metric.reset()
        if self._own is not None:
            self.shown, self._own = gather_episodes(self._own), None
        normalised = self._data().normalise(self.game, float(figures["score"]))
        # Published scores are of whole games: those that data.eval_max_steps has cut cannot stand beside them.
        if normalised is not None and self.shown is not None and self.shown.complete.all():
            figures["human_normalised"] = torch.tensor(normalised, dtype=torch.float32)
        self.log_dict({f"{part}/{name}": value.to(self.device) for name, value in figures.items()}, sync_dist=True)

    def predict_step(self, batch: EpisodeNumbers, batch_idx: int) -> EpisodeNumbers:
        """Which episodes to play: that is done where they are filmed, see `rl.predictions.EpisodeWriter`."""
        return batch

    # ------------------------------------------------------------------ export

    def export_module(self) -> nn.Module:
        """Observations ``(B, C, H, W)`` uint8 in; logits ``(B, A)`` and values ``(B,)`` out."""
        return _Judge(self.policy)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two observations, of random pixels."""
        shape = self.policy.observation_space.shape
        assert shape is not None
        generator = torch.Generator().manual_seed(0)
        return (torch.randint(256, (2, *shape), generator=generator, dtype=torch.uint8).to(self.device),)

    def export_more(self, folder: Path) -> dict[Path, float]:
        """Writes ``policy.zip``, of Stable-Baselines3, and ``policy.safe.zip``, and compares the latter's actions."""
        of_sb3, safe = folder / "policy.zip", folder / "policy.safe.zip"
        folder.mkdir(parents=True, exist_ok=True)
        export_zip(self.algorithm, of_sb3)
        export_safe(self.algorithm, safe)
        (observations,) = (inputs.cpu() for inputs in self.example_inputs())
        with torch.no_grad():
            wanted = values_and_logits(self.policy.cpu(), observations)[1]
            # A replay buffer, of DQN, would take gigabytes.
            loaded = type(self.algorithm).load(of_sb3, device="cpu", custom_objects={"buffer_size": 1})
            files = {of_sb3: loaded.policy, safe: load_safe(safe)}
            return {
                path: float((values_and_logits(policy, observations)[1] - wanted).abs().max())
                for path, policy in files.items()
            }

    # ------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counts of the training. Environments are not saved: a run that is resumed begins new episodes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[COUNTS] = {
            "rollouts": self.rollouts,
            "timesteps": self.timesteps,
            "updates": self.algorithm._n_updates,
            "seconds": dict(vars(self.seconds)),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the counts over, and the optimizer's state, which Stable-Baselines3 goes on with after an export."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("optimizer_states"):
            self.policy.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        counts = checkpoint.get(COUNTS, {})
        self.rollouts = counts.get("rollouts", 0)
        self.algorithm.num_timesteps = counts.get("timesteps", 0)
        self.algorithm._n_updates = counts.get("updates", 0)
        for name, value in counts.get("seconds", {}).items():
            setattr(self.seconds, name, value)


class _Judge(nn.Module):
    """What a policy thinks of observations, as tensors alone."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        values, preferences = values_and_logits(cast("ActorCriticPolicy", self.policy), observations)
        return preferences, values

"""Evaluation of the policies of RL tasks: whole games in validations and tests, and failures that end a run."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.checkpoints import raise_if_interrupted, save_before_error
from coordconv_apps.training.divergence import Diverged
from coordconv_apps.training.signals import Interrupted
from coordconv_apps.training.task import Task
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.distributed import gather_ranks
from coordconv_apps.utils.errors import UserError
from rl.data import EVALUATION_SEEDS, RLData
from rl.evaluation.episodes import EpisodeScores, gather_episodes, play_episodes
from rl.evaluation.scores import human_normalised

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.policies import BasePolicy

    from coordconv_apps.data.splits import EvaluationSplit
    from rl.envs.game_options import GameOptions
    from rl.evaluation.episodes import Episodes, EpisodeShard
    from rl.evaluation.play import Player


class EpisodeEvaluation(Task):
    """Base of the RL tasks: play whole games in validations and tests, log their scores, and end a run that fails.

    Args:
        coords: Coordinates that the policy's convolutions see.

    Attributes:
        metric: Class of the metric that turns the episodes of an evaluation into the logged values.
        game: Name of the game.
        env_options: How the game is shown to the policy; `rl.data.RLData` sets the other options.
        policy: The policy that is trained.
        last_evaluation: The episodes of the last evaluation, of all ranks; None before the first one.
        evaluation_seconds: Time spent in evaluations since the start of the training epoch.
    """

    monitor: ClassVar[str] = "val/score"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    metric: ClassVar[type[EpisodeScores]] = EpisodeScores
    game: str
    env_options: GameOptions
    policy: BasePolicy

    def __init__(self, coords: Coords) -> None:
        super().__init__(coords)
        self.last_evaluation: Episodes | None = None
        self.evaluation_seconds = 0.0

    def predict(
        self,
        observation: Any,  # noqa: ANN401  # an array, or a dict of them
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Return the actions of the policy, as ``predict`` of Stable-Baselines3's algorithms does.

        A task can therefore stand wherever Stable-Baselines3 takes an algorithm to play, such as in its
        ``evaluate_policy``.

        Args:
            observation: An observation of the game as `rl.envs.games.open_envs` makes it, or a batch of them.
            state: Hidden state of a recurrent policy; None for the policies of this package.
            episode_start: Whether each observation is the first of its episode, for recurrent policies.
            deterministic: Whether to return the most probable action (with DQN, the one of the largest Q-value)
                instead of a random one.

        Returns:
            The action, or an array of actions ``(N, ...)``, and the next hidden state.

        Example:
            >>> from rl import A2C
            >>> task = A2C(game="catch")  # or A2C.load_from_checkpoint(path)
            >>> action, _ = task.predict(task.observation_space.sample(), deterministic=True)
            >>> int(action) in range(3)
            True
        """
        with self.inference():
            return self.player.predict(observation, state, episode_start, deterministic)

    @property
    def player(self) -> Player:
        """The policy or algorithm that plays in evaluations."""
        return self.policy

    @property
    def data(self) -> RLData:
        """The trainer's data module."""
        return attached_datamodule(self.trainer, RLData)

    def validation_step(self, batch: EpisodeShard, batch_idx: int) -> None:
        """Evaluate the policy; a validation is one batch, this rank's share of the episodes."""
        self._evaluate(batch, "val")

    def test_step(self, batch: EpisodeShard, batch_idx: int) -> None:
        """Evaluate the policy, as in a validation."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: list[int], batch_idx: int) -> list[int]:
        """Return the numbers of the episodes, which `rl.predictions.EpisodeWriter` plays and films."""
        return batch

    # ---------------------------------------- failures, in training and evaluation

    def nan_error(self) -> Diverged:
        """Return the error that ends a training whose policy produces NaN or infinity."""
        return self.divergence_error("the policy produced NaN or infinity")

    @contextmanager
    def nan_as_divergence(self) -> Iterator[None]:
        """Raise `nan_error` in place of the long message with which torch's distributions reject NaN parameters."""
        try:
            yield
        except ValueError as error:
            if "found invalid values" not in str(error):
                raise
            raise self.nan_error() from error

    def raise_if_any_failed(
        self, failure: UserError | Interrupted | None, place: Literal["batch", "validation"]
    ) -> None:
        """Raise this rank's failure, or that of the first rank that has one, and save the training before.

        All ranks call this together. A training that has diverged is not saved. ``place`` is where a resumed run
        continues, as in `coordconv_apps.training.checkpoints.save_before_error`.
        """
        failures = [each for each in gather_ranks(failure) if each is not None]
        if not failures:
            return
        if not any(isinstance(each, Diverged) for each in failures):
            save_before_error(self.trainer, place)
        raised = failure or failures[0]
        if isinstance(raised, UserError):
            raised.raised_by_all = True
        raise raised

    # ------------------------------------------------------------------ evaluation

    def _evaluate(self, shard: EpisodeShard, split: EvaluationSplit) -> None:
        """Play this rank's episodes, and log the metrics of the episodes of all ranks."""
        started, episodes = time.perf_counter(), None
        failure: UserError | Interrupted | None = None
        try:
            # In single precision, like films and predictions.
            with torch.autocast(self.device.type, enabled=False), self.nan_as_divergence():
                episodes = self._play(shard, split)
        except (UserError, Interrupted) as error:
            failure = error
        self.raise_if_any_failed(failure, "validation")
        assert episodes is not None
        metric = self.metric().to(self.device)
        metric.update(episodes)
        values = metric.compute()
        self.last_evaluation = gather_episodes(episodes)
        normalised = self.normalise(float(values["score"]))
        # Published scores are those of whole games; scores of games that data.eval_max_steps cut off differ.
        if normalised is not None and self.last_evaluation.complete.all():
            values["human_normalised"] = torch.tensor(normalised, dtype=torch.float32, device=self.device)
        self.log_dict({f"{split}/{name}": value for name, value in values.items()}, batch_size=1, sync_dist=True)
        self.evaluation_seconds += time.perf_counter() - started

    def _play(self, shard: EpisodeShard, split: EvaluationSplit) -> Episodes:
        """Play whole games: the same ones each time."""
        data, seed = self.data, EVALUATION_SEEDS[split] + shard.first_env
        with data.evaluation_envs(self.game, self.env_options, max(shard.num_envs, 1), seed) as env:
            return play_episodes(
                self.player,
                env,
                shard.num_episodes,
                deterministic=data.deterministic,
                seed=seed,
                max_steps=data.eval_max_steps,
                before=lambda: raise_if_interrupted(self.trainer),
            )

    def normalise(self, score: float) -> float | None:
        """Return `rl.evaluation.scores.human_normalised` of an unclipped score; None without a reference."""
        return human_normalised(self.game, score, self.data.complete_options(self.env_options))

"""Environments to train in and to evaluate in, and the length of an epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.utils.argument_checks import POSITIVE_INT, Allowed, check_ranges, int_up_to
from coordconv_apps.utils.seeds import mix_seeds
from rl.envs.game_options import DEFAULTS, MAX_ENVS, RANGES, GameOptions, check_kind
from rl.envs.games import find_kind, open_envs
from rl.evaluation.episodes import EpisodeShard, shard_episodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stable_baselines3.common.vec_env import VecEnv

T = TypeVar("T")

EVALUATION_SEEDS: dict[EvaluationSplit, int] = {"val": 1_000_000, "test": 2_000_000}
"""Seed of the first environment of an evaluation: the same games for every run, and none that training plays."""

PREDICTION_SEED = 3_000_000
"""Seed of the first episode that ``predict`` plays; the next one has the next seed."""

_SEEDS = 2**30
"""Upper limit of a training's first seed. Training seeds are in the upper half, above those of evaluations."""

_ALLOWED: dict[str, Allowed] = {
    **dict.fromkeys(("eval_episodes", "test_episodes", "predict_episodes"), POSITIVE_INT),
    **dict.fromkeys(("steps_per_epoch", "eval_max_steps"), POSITIVE_INT),
    **dict.fromkeys(("num_envs", "num_eval_envs"), int_up_to(MAX_ENVS)),
    **RANGES,
}


class GameTask(Protocol):
    """The task that the environments are for, as far as the data ask it."""

    game: str
    env_options: GameOptions

    def steps_per_training_step(self) -> int:
        """Return the number of environment steps in one training step, over all ranks."""


class Batches(Generic[T]):
    """A data loader over given batches.

    A loader with a state tells Lightning that training may resume mid-epoch. The state is empty: only the number of
    remaining batches matters, and Lightning keeps track of that.
    """

    def __init__(self, batches: Sequence[T]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[T]:
        return iter(self.batches)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Ignore the state."""


class RLData(DataModule):
    """Open environments to train in and to evaluate in.

    Numbers of environments are totals over all ranks. Each rank runs a part of them, and environment i is the same
    whichever rank runs it.

    Args:
        num_envs: Environments to train in: a multiple of the number of processes, at most 10,000.
        steps_per_epoch: Steps of all environments in an epoch, rounded up to whole rollouts. After each epoch, metrics
            are logged, a checkpoint is saved and the policy is validated (see trainer.check_val_every_n_epoch).
        num_eval_envs: Environments that are played at the same time in a validation or test, at most 10,000.
        eval_episodes: Episodes of a validation.
        test_episodes: Episodes of a test.
        predict_episodes: Episodes that predict plays and films.
        render_mode: "human" shows the episodes of predict in a window while they are played.
        deterministic: Whether evaluations take the most probable actions instead of sampling them.
        eval_max_steps: Steps of each environment after which an evaluation ends. Null for no limit.
        episodic_life: Atari: whether a lost life ends the episode for the learner, while the game continues.
        clip_rewards: Atari: whether the learner gets the sign of rewards. Scores use unclipped rewards.
        frame_skip: Atari: frames for which an action is held, at most 1000.
        noop_max: Atari: a game starts with a random number of no-op steps, 0 to noop_max - 1 (games in a mode: 1 to
            noop_max); at most 10,000.
        repeat_action_probability: Atari: probability that a frame repeats the last action ("sticky actions").
        num_threads: Atari: number of games that are stepped at the same time; 0 for all of them; at most 1000. Those
            in a mode (model.arguments) take turns.
        balls: Catch: balls in an episode; null for the game's own number.
        paddle: Catch: width of the paddle in cells; null for the game's own.
        processes: Gymnasium: whether each environment runs in a process of its own, of about 250 MB. Training and
            validations have processes of their own, which stay open until the command ends.
        seed: Seed of the environments, the sampled actions and the order of minibatches. Null for the value of
            seed_everything, so that different values of it are independent trainings.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        num_envs: int = 16,
        steps_per_epoch: int = 100_000,
        num_eval_envs: int = 8,
        eval_episodes: int = 16,
        test_episodes: int = 100,
        predict_episodes: int = 1,
        render_mode: Literal["human"] | None = None,
        deterministic: bool = False,
        eval_max_steps: int | None = None,
        episodic_life: bool = True,
        clip_rewards: bool = True,
        frame_skip: int = 4,
        noop_max: int = 30,
        repeat_action_probability: float = 0.0,
        num_threads: int = 0,
        balls: int | None = None,
        paddle: int | None = None,
        processes: bool = False,
        seed: int | None = None,
    ) -> None:
        if seed is None:  # Lightning's seed_everything
            seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) % _SEEDS
        super().__init__(seed=seed)
        if seed >= _SEEDS:
            raise ValueError(f"data.seed={seed}: must be below {_SEEDS}")
        self.num_envs = num_envs
        self.steps_per_epoch = steps_per_epoch
        self.num_eval_envs = num_eval_envs
        self.num_episodes: dict[EvaluationSplit, int] = {"val": eval_episodes, "test": test_episodes}
        self.predict_episodes = predict_episodes
        self.render_mode = render_mode
        self.deterministic = deterministic
        self.eval_max_steps = eval_max_steps
        options: dict[str, Any] = {
            "episodic_life": episodic_life,
            "clip_rewards": clip_rewards,
            "frame_skip": frame_skip,
            "noop_max": noop_max,
            "repeat_action_probability": repeat_action_probability,
            "num_threads": num_threads,
            "balls": balls,
            "paddle": paddle,
            "processes": processes,
        }
        episodes = {"eval_episodes": eval_episodes, "test_episodes": test_episodes}
        check_ranges({**vars(self), **options, **episodes}, _ALLOWED, "data")
        self._options = {name: value for name, value in options.items() if value is not None}  # of `GameOptions`
        self._kept_envs: VecEnv | None = None

    def setup(self, stage: str) -> None:
        """Check that no option is for another kind of game, and that every rank gets as many environments."""
        if self.complete_options(DEFAULTS) != DEFAULTS:
            task = self._task()
            check_kind(task.game, find_kind(task.game), self.complete_options(task.env_options))
        world_size = self._processes()[1]
        if stage == "fit" and self.num_envs % world_size:
            raise ValueError(
                f"data.num_envs={self.num_envs}: must be a multiple of the number of processes, {world_size}"
                " (trainer.devices times trainer.num_nodes)"
            )

    def _task(self) -> GameTask:
        assert self.trainer is not None
        return cast("GameTask", self.trainer.lightning_module)

    def complete_options(self, env_options: GameOptions) -> GameOptions:
        """Return the options of a game to train on: the task's, which say how it is shown, with those of the data."""
        return replace(env_options, **self._options)

    # ----------------------------------------------------------------- training

    @property
    def own_envs(self) -> range:
        """The numbers of this rank's environments among those of all ranks."""
        rank, world_size = self._processes()
        own = self.num_envs // world_size
        return range(rank * own, (rank + 1) * own)

    def train_dataloader(self) -> Batches[int]:
        """Return the numbers of the training steps of an epoch; the task collects the data of each step itself."""
        return Batches(range(math.ceil(self.steps_per_epoch / self._task().steps_per_training_step())))

    def open_training_envs(self, game: str, env_options: GameOptions, rollouts: int) -> VecEnv:
        """Open this rank's environments to train in, as `rl.envs.games.open_envs` does.

        Their seeds depend on the run's seed and the number of rollouts collected so far, so that a resumed run plays
        new games. Runs with neighbouring seeds have no games in common either.
        """
        own = self.own_envs
        seed = training_seed(self.seed, rollouts) + own.start
        return open_envs(game, len(own), seed, self.complete_options(env_options), own.start)

    # --------------------------------------------------------------- evaluation

    def val_dataloader(self) -> Batches[EpisodeShard]:
        """Return the part of a validation that this rank plays, as one batch."""
        return Batches([self.shard("val")])

    def test_dataloader(self) -> Batches[EpisodeShard]:
        """Return the part of a test that this rank plays, as one batch."""
        return Batches([self.shard("test")])

    def predict_dataloader(self) -> Batches[list[int]]:
        """Return the numbers of the episodes of a prediction that this rank plays, as one batch."""
        rank, world_size = self._processes()
        return Batches([list(range(rank, self.predict_episodes, world_size))])

    def shard(self, split: EvaluationSplit) -> EpisodeShard:
        """Return the part of an evaluation that this rank plays."""
        return shard_episodes(self.num_episodes[split], self.num_eval_envs, *self._processes())

    def open_evaluation_envs(
        self,
        game: str,
        env_options: GameOptions,
        num_envs: int,
        seed: int,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> VecEnv:
        """Open environments that play whole games with unclipped scores, as `rl.envs.games.open_envs` does.

        With render_mode "rgb_array", Atari games render in colour.
        """
        options = replace(
            self.complete_options(env_options), episodic_life=False, clip_rewards=False, render_mode=render_mode
        )
        if num_envs == 1:  # a film: a process of its own would only take time to start
            options = replace(options, processes=False)
        return open_envs(game, num_envs, seed, options)

    @contextmanager
    def evaluation_envs(self, game: str, env_options: GameOptions, num_envs: int, seed: int) -> Iterator[VecEnv]:
        """Yield environments of `open_evaluation_envs`, to be seeded and reset.

        Those in processes of their own stay open for the next evaluation, because they take seconds to start.
        """
        env = self._kept_envs
        if env is None:
            env = self.open_evaluation_envs(game, env_options, num_envs, seed)
        self._kept_envs = None
        try:
            yield env
            if self._options["processes"]:
                self._kept_envs = env
        finally:
            if self._kept_envs is None:
                env.close()

    def teardown(self, stage: str) -> None:
        """Close the environments of evaluations."""
        if self._kept_envs is not None:
            self._kept_envs.close()
            self._kept_envs = None


def training_seed(seed: int, rollouts: int) -> int:
    """Return the seed of the first environment of a training that starts or resumes after some rollouts."""
    return _SEEDS // 2 + mix_seeds(seed, rollouts) % (_SEEDS // 2)

"""Data that are played: rollouts of the policy that is being trained, and episodes to evaluate it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.utils.seeds import mix_seeds
from rl.envs.catch import BALLS, PADDLE
from rl.envs.games import check_options, find_kind, open_envs
from rl.evaluation.episodes import Episodes, EpisodeShard, play_episodes, shard_episodes
from rl.evaluation.scores import human_normalised
from rl.loaders import OneBatch, RolloutLoader
from rl.replay import ReplayLoader

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from rl.playing_task import PlayingTask
    from rl.task import RLTask

Split = Literal["val", "test"]

EVALUATION_SEEDS: dict[Split, int] = {"val": 1_000_000, "test": 2_000_000}
"""Of the first environment of an evaluation: the same games for every run, and none of a training's."""

PREDICTION_SEED = 3_000_000
"""Of the first episode that ``predict`` plays."""

_SEEDS = 2**30
"""Seeds are below this; those of a training's first environment are in the upper half, above all of evaluations."""


class EpisodeNumbers(NamedTuple):
    """What one process plays in a prediction.

    Attributes:
        numbers: Of episodes, from 0.
    """

    numbers: list[int]


class RLData(DataModule):
    """Environments to learn in and to be evaluated in.

    Numbers of environments are those of all processes together: each process has its share, and environment i is the
    same one whichever process has it.

    Args:
        num_envs: Environments to learn in: a multiple of the number of processes.
        steps_per_epoch: Steps of all environments in an epoch, rounded up to whole rollouts. After each epoch there are
            figures, a checkpoint and, as trainer.check_val_every_n_epoch has it, a validation.
        num_eval_envs: Environments that are played in at a time to validate or test.
        eval_episodes: Episodes to validate with.
        test_episodes: Episodes to test with.
        predict_episodes: Episodes that predict plays and films.
        deterministic: Whether evaluations take the most probable actions, not drawn ones.
        eval_max_steps: Steps of each environment after which an evaluation ends in any case. Null: without bounds.
        episodic_life: Atari: whether a lost life ends the episode for the learner, while the game goes on.
        clip_rewards: Atari: whether the learner gets the sign of rewards. Scores are of unclipped ones.
        frame_skip: Atari: frames for which an action is held.
        noop_max: Atari: most no-op steps at the start of a game; their number is random.
        repeat_action_probability: Atari: how likely a frame repeats the last action ("sticky actions"), in [0, 1].
        num_threads: Atari: games that are stepped at the same time; 0: all of them.
        balls: Catch: balls in an episode; null: the game's own number.
        paddle: Catch: width of the paddle in cells; null: the game's own.
        processes: Gymnasium: each environment in a process of its own.
        seed: Fixes the environments, the actions that are drawn and the order of learning. Null: seed_everything's, so
            that several seeds of that are as many independent trainings.

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
        if seed is None:  # Lightning keeps it there
            seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) % _SEEDS
        super().__init__(seed=seed)
        for name, value in (
            ("num_envs", num_envs),
            ("steps_per_epoch", steps_per_epoch),
            ("num_eval_envs", num_eval_envs),
            ("eval_episodes", eval_episodes),
            ("test_episodes", test_episodes),
            ("predict_episodes", predict_episodes),
            ("eval_max_steps", eval_max_steps),
        ):
            if value is not None and value < 1:
                raise ValueError(f"data.{name}={value}: must be an integer of at least 1")
        check_options(locals())
        if seed >= _SEEDS:
            raise ValueError(f"data.seed={seed}: must be below {_SEEDS}")
        self.num_envs = num_envs
        self.steps_per_epoch = steps_per_epoch
        self.num_eval_envs = num_eval_envs
        self.num_episodes: dict[Split, int] = {"val": eval_episodes, "test": test_episodes}
        self.predict_episodes = predict_episodes
        self.deterministic = deterministic
        self.eval_max_steps = eval_max_steps
        options = {
            "frame_skip": frame_skip,
            "noop_max": noop_max,
            "repeat_action_probability": repeat_action_probability,
            "num_threads": num_threads,
            "balls": balls,
            "paddle": paddle,
            "processes": processes,
        }
        self.options = {name: value for name, value in options.items() if value is not None}
        self.learning = {"episodic_life": episodic_life, "clip_rewards": clip_rewards}
        self._rollouts: RolloutLoader | ReplayLoader | None = None

    def setup(self, stage: str) -> None:
        """Checks that the environments can be dealt out to the processes.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: They cannot.
        """
        world_size = self._processes()[1]
        if stage == "fit" and self.num_envs % world_size:
            raise ValueError(
                f"data.num_envs={self.num_envs}: must be a multiple of the number of processes, {world_size}"
                " (trainer.devices times trainer.num_nodes)"
            )

    def train_dataloader(self) -> RolloutLoader | ReplayLoader:
        """Plays rollouts with the policy as it is at the time."""
        assert self.trainer is not None
        task: RLTask = self.trainer.lightning_module  # type: ignore[assignment]  # an application's task and its data
        rank, world_size = self._processes()
        own = self.num_envs // world_size

        def open_own() -> VecEnv:
            first = rank * own
            seed = self._training_seed(task.rollouts) + first
            return open_envs(task.game, own, seed, self._options(task), first)

        if task.replay is not None:
            self._rollouts = ReplayLoader(
                task,
                task.replay,
                open_own,
                num_envs=own,
                seed=self.seed,
                steps_per_epoch=self.steps_per_epoch,
            )
            return self._rollouts
        self._rollouts = RolloutLoader(
            self.trainer,
            task,
            open_own,
            num_envs=self.num_envs,
            seed=self.seed,
            length=-(-self.steps_per_epoch // (self.num_envs * task.settings.n_steps)),
        )
        return self._rollouts

    def _options(self, task: RLTask) -> dict[str, Any]:
        """How training games are played."""
        return {**task.options, **self.options, **self.learning}

    def _training_seed(self, rollouts: int) -> int:
        """Of the first environment. Neighbouring seeds have no games in common, nor do the parts of a resumed run."""
        return _SEEDS // 2 + mix_seeds(self.seed, rollouts) % (_SEEDS // 2)

    def val_dataloader(self) -> OneBatch[EpisodeShard]:
        """What this process plays in a validation."""
        return OneBatch(self.share("val"))

    def test_dataloader(self) -> OneBatch[EpisodeShard]:
        """What this process plays in a test."""
        return OneBatch(self.share("test"))

    def predict_dataloader(self) -> OneBatch[EpisodeNumbers]:
        """What this process plays in a prediction."""
        rank, world_size = self._processes()
        return OneBatch(EpisodeNumbers(list(range(rank, self.predict_episodes, world_size))))

    def share(self, part: Split) -> EpisodeShard:
        """What this process plays in an evaluation."""
        return shard_episodes(self.num_episodes[part], self.num_eval_envs, *self._processes())

    def evaluate(self, task: PlayingTask, own: EpisodeShard, part: Split) -> Episodes:
        """Plays this process's episodes: whole games, scores not clipped, and the same ones each time.

        Args:
            task: Who plays.
            own: What this process plays.
            part: Which evaluation.
        """
        seed = EVALUATION_SEEDS[part] + own.first_env
        env = self.open_evaluation(task, max(own.num_envs, 1), seed, first=own.first_env)
        try:
            return play_episodes(
                task.player,
                env,
                own.num_episodes,
                deterministic=self.deterministic,
                seed=seed,
                max_steps=self.eval_max_steps,
            )
        finally:
            env.close()

    def open_evaluation(
        self,
        task: PlayingTask,
        num_envs: int,
        seed: int,
        render_mode: Literal["rgb_array"] | None = None,
        first: int = 0,
    ) -> VecEnv:
        """Makes environments that play whole games, with scores that are not clipped.

        Args:
            task: Who plays.
            num_envs: How many.
            seed: Of the first.
            render_mode: "rgb_array" for pictures of Atari's games in colour, as of `rl.envs.games.GameOptions`.
            first: Number of the first environment, for messages.

        Returns:
            The environments. What breaks in them raises `rl.envs.checks.BrokenEnvironment`.
        """
        options = {**task.options, **self.options, "episodic_life": False, "clip_rewards": False}
        options["render_mode"] = render_mode
        return open_envs(task.game, num_envs, seed, options, first)

    def normalise(self, game: str, score: float) -> float | None:
        """A score where random actions have 0 and a human 1, as of `rl.evaluation.scores.human_normalised`.

        Args:
            game: Its name.
            score: Not clipped.

        Returns:
            None where there is none, as of Catch by other rules than its own.
        """
        normalised = human_normalised(game, score)
        if normalised is None or find_kind(game) != "catch":
            return normalised
        own = {"balls": BALLS, "paddle": PADDLE}
        return normalised if all(self.options.get(name, value) == value for name, value in own.items()) else None

    @staticmethod
    def prediction_seed(number: int) -> int:
        """The seed of an episode of ``predict``."""
        return PREDICTION_SEED + number

    def teardown(self, stage: str) -> None:
        """Closes the environments of a training.

        Args:
            stage: What the trainer has done.
        """
        if self._rollouts is not None:
            self._rollouts.close()
            self._rollouts = None

"""Catch, the built-in small game: a ball falls, and the paddle at the bottom has to be under it when it lands.

The game is bsuite's `catch` (Osband et al., 2020, "Behaviour Suite for Reinforcement Learning"; first in Mnih et al.,
2014, "Recurrent Models of Visual Attention") on 84 x 84 pixels, with several balls in an episode. Where ball and paddle
are is all there is to see, and one picture shows it: balls fall straight down, at one speed.

For Stable-Baselines3 there are many games in one environment, `CatchVecEnv`, and one game as a Gymnasium environment,
`Catch`, which is ``gymnasium.make("CoordConv/Catch-v0")`` once `rl` is imported. Games in processes of their own import
it by the name ``rl:CoordConv/Catch-v0``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

    Images = npt.NDArray[np.uint8]

GRID = 12
"""Columns, and rows, of the board."""
CELL = 7
"""Side of a cell, in pixels."""
IMAGE_SIZE = GRID * CELL
"""Height and width of an observation, in pixels: 84, as of Atari's."""
PADDLE = 3
"""Width of the paddle, in cells."""
BALLS = 5
"""Balls in an episode."""

BALL_VALUE, PADDLE_VALUE = 255, 128
"""Values of their pixels; those of the rest are 0."""

GYMNASIUM_ID = "CoordConv/Catch-v0"
"""The name that importing `rl` registers with Gymnasium."""


def best_score(balls: int = BALLS) -> float:
    """The score of an episode in which every ball is caught. The paddle can be in time for each of them."""
    return float(balls)


def random_score(balls: int = BALLS, paddle: int = PADDLE) -> float:
    """The expected score of a policy that does not look, such as the one that draws its actions at random.

    A ball's column is uniform and independent of where such a policy has moved the paddle, which always covers as many
    columns. So a ball is caught with probability ``p = paddle / GRID``, and its expected score is ``p - (1 - p)``.
    """
    return balls * (2 * paddle / GRID - 1)


BEST_SCORE = best_score()
"""The best score of an episode of the standard game."""
RANDOM_SCORE = random_score()
"""The expected score of random actions in an episode of the standard game."""


class Boards:
    """Many games of Catch, of the same rules and each with random numbers of its own.

    A ball is `GRID` - 1 steps in the air. It is seen once where it landed, and in the step after that the next one
    appears at the top. So an episode has ``balls * GRID - 1`` steps.

    Args:
        number: How many games.
        balls: Balls in an episode.
        paddle: Width of the paddle, in cells.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, number: int, balls: int = BALLS, paddle: int = PADDLE) -> None:
        if number < 1:
            raise ValueError(f"num_envs={number}: must be an integer of at least 1")
        if balls < 1:
            raise ValueError(f"balls={balls}: must be an integer of at least 1")
        if not 1 <= paddle < GRID:
            raise ValueError(f"paddle={paddle}: must be an integer in [1, {GRID - 1}]")
        self.number, self.balls, self.paddle = number, balls, paddle
        self.generators = [np.random.default_rng() for _ in range(number)]
        self._every = np.arange(number)
        self._columns = np.zeros(number, np.int64)
        self._rows = np.zeros(number, np.int64)
        self._lefts = np.zeros(number, np.int64)  # first column of each paddle
        self._landed = np.zeros(number, np.int64)  # balls that have landed in this episode

    def begin(self, which: npt.NDArray[np.int64] | None = None) -> None:
        """Begins new episodes: the paddle in the middle, the first ball at the top.

        Args:
            which: Numbers of the games, all if None.
        """
        which = self._every if which is None else which
        self._lefts[which] = (GRID - self.paddle) // 2
        self._landed[which] = 0
        self._drop(which)

    def _drop(self, which: npt.NDArray[np.int64]) -> None:
        self._rows[which] = 0
        self._columns[which] = [self.generators[game].integers(GRID) for game in which]

    def move(self, actions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Moves the paddles and lets the balls fall.

        Args:
            actions: ``(number,)``: 0 left, 1 stay, 2 right.

        Returns:
            float32 ``(number,)`` rewards: 1 for a ball that was caught, -1 for one that was missed, 0 otherwise. And
            bool ``(number,)``, whether the episode is over.
        """
        np.clip(self._lefts + np.asarray(actions) - 1, 0, GRID - self.paddle, out=self._lefts)
        lying = self._rows == GRID - 1
        self._rows += 1
        if lying.any():
            self._drop(np.flatnonzero(lying))
        landing = self._rows == GRID - 1
        self._landed += landing
        caught = (self._lefts <= self._columns) & (self._columns < self._lefts + self.paddle)
        rewards = np.where(landing, np.where(caught, 1, -1), 0).astype(np.float32)
        return rewards, landing & (self._landed == self.balls)

    def draw(self) -> Images:
        """Pictures of the games, uint8 ``(number, 1, IMAGE_SIZE, IMAGE_SIZE)``: new ones at every call."""
        cells = np.zeros((self.number, GRID, CELL, GRID, CELL), np.uint8)
        for column in range(self.paddle):
            cells[self._every, GRID - 1, :, self._lefts + column] = PADDLE_VALUE
        cells[self._every, self._rows, :, self._columns] = BALL_VALUE
        return cells.reshape(self.number, 1, IMAGE_SIZE, IMAGE_SIZE)


def _observation_space() -> spaces.Box:
    return spaces.Box(0, 255, (1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)


def _in_colour(image: Images) -> Images:
    """From an observation ``(1, H, W)`` to the ``(H, W, 3)`` that rendering gives."""
    return np.repeat(image[0, :, :, None], 3, axis=2)


class CatchVecEnv(VecEnv):
    """Many games of Catch as one Stable-Baselines3 environment.

    Observations are uint8 ``(num_envs, 1, 84, 84)``, new arrays at every step. Actions are 0 left, 1 stay, 2 right.
    When an episode is over, ``infos[i]["episode"]`` has its score ``r``, its length ``l`` in steps, and the seconds
    ``t`` since the environment was made, as Stable-Baselines3's `Monitor` has them.

    Args:
        num_envs: How many games.
        seed: Game ``i`` draws from ``seed + i``, however many others there are. None: from the system's entropy.
        balls: Balls in an episode.
        paddle: Width of the paddle, in cells of 7 pixels.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, num_envs: int, seed: int | None = None, *, balls: int = BALLS, paddle: int = PADDLE) -> None:
        self.boards = Boards(num_envs, balls, paddle)
        self.render_mode = "rgb_array"
        super().__init__(num_envs, _observation_space(), spaces.Discrete(3))
        cast("dict[str, Any]", self.metadata)["render_fps"] = Catch.metadata["render_fps"]
        self._started = time.monotonic()
        self._scores = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._actions = np.ones(num_envs, np.int64)
        if seed is not None:
            self.seed(seed)

    def reset(self) -> Images:
        """Begins a new episode of every game; seeds that were set by `seed` hold from here on."""
        for game, seed in enumerate(self._seeds):
            if seed is not None:
                self.boards.generators[game] = np.random.default_rng(seed)
        self._reset_seeds()
        self._reset_options()
        self._scores[:], self._lengths[:] = 0, 0
        self.boards.begin()
        return self.boards.draw()

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Takes the actions of the next step, ``(num_envs,)``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Takes the step. Where an episode ends the next one begins, as Stable-Baselines3 has it."""
        rewards, done = self.boards.move(self._actions)
        self._scores += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        images = self.boards.draw()
        if done.any():
            over = np.flatnonzero(done)
            seconds = time.monotonic() - self._started
            for game in over:
                infos[game]["terminal_observation"] = images[game].copy()
                infos[game]["episode"] = {
                    "r": float(self._scores[game]),
                    "l": int(self._lengths[game]),
                    "t": round(seconds, 6),
                }
            self._scores[over], self._lengths[over] = 0, 0
            self.boards.begin(over)
            images = self.boards.draw()
        return images, rewards, done, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_images(self) -> Sequence[Images]:
        """The games as uint8 ``(84, 84, 3)`` each."""
        return [_in_colour(image) for image in self.boards.draw()]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The value of an attribute, once for each of the games: it is the same for all."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> NoReturn:
        """Raises `AttributeError`: single games have no attributes that could be set."""
        raise AttributeError(f"{attr_name}: single games of Catch have no attributes to set")

    def env_method(self, method_name: str, *args: object, indices: VecEnvIndices = None, **kwargs: object) -> NoReturn:
        """Raises `AttributeError`: single games have no methods."""
        raise AttributeError(f"{method_name}: single games of Catch have no methods")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Whether there is a wrapper: only `Monitor`, in that the infos have its entry ``episode``."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class Catch(gymnasium.Env[Any, Any]):
    """One game of Catch as a Gymnasium environment: the same game as in `CatchVecEnv`, seed for seed.

    Args:
        balls: Balls in an episode.
        paddle: Width of the paddle, in cells of 7 pixels.
        render_mode: "rgb_array", or None for no pictures but the observations.

    Raises:
        ValueError: An argument is out of its range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  # Gymnasium's own declaration

    def __init__(self, balls: int = BALLS, paddle: int = PADDLE, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode}: must be rgb_array or None")
        self.boards = Boards(1, balls, paddle)
        self.render_mode = render_mode
        self.observation_space = _observation_space()
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Images, dict[str, Any]]:
        """Begins a new episode.

        Args:
            seed: Seeds the game's random numbers. None: they go on.
            options: There are none.

        Returns:
            The first observation, uint8 ``(1, 84, 84)``, and an empty dictionary.
        """
        super().reset(seed=seed)
        self.boards.generators[0] = self.np_random
        self.boards.begin()
        return self.boards.draw()[0], {}

    def step(self, action: int) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Takes a step: see `Boards.move`. Episodes are never truncated."""
        rewards, done = self.boards.move(np.array([action]))
        return self.boards.draw()[0], float(rewards[0]), bool(done[0]), False, {}

    def render(self) -> Images | None:
        """The game as uint8 ``(84, 84, 3)``; None without a render mode."""
        return _in_colour(self.boards.draw()[0]) if self.render_mode == "rgb_array" else None

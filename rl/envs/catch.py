"""Catch, a small built-in game: a ball falls, and the paddle at the bottom has to be under it when it lands.

The game is bsuite's `catch` (Osband et al., 2020, "Behaviour Suite for Reinforcement Learning"; first in Mnih et al.,
2014, "Recurrent Models of Visual Attention") on 84 x 84 pixels, with several balls in an episode. One image shows the
whole state, the positions of ball and paddle: balls fall straight down at constant speed.

`CatchVecEnv` runs many games in one Stable-Baselines3 environment. `Catch` is one game as a Gymnasium environment,
``gymnasium.make("CoordConv/Catch-v0")`` after ``import rl``, or ``"rl:CoordConv/Catch-v0"`` in worker processes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from coordconv_apps.utils.argument_checks import check_at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

    Images = npt.NDArray[np.uint8]

GRID = 12
"""Number of columns and of rows of the board."""
CELL = 7
"""Side of a cell in pixels."""
IMAGE_SIZE = GRID * CELL
"""Height and width of an observation in pixels: 84, as for Atari."""
PADDLE = 3
"""Width of the paddle in cells."""
BALLS = 5
"""Number of balls in an episode."""

BALL_VALUE, PADDLE_VALUE = 255, 128
"""Pixel values of ball and paddle; the background is 0."""

GYMNASIUM_ID = "CoordConv/Catch-v0"
"""Name that importing `rl` registers with Gymnasium."""


BEST_SCORE = float(BALLS)
"""Best score of an episode of the standard game: every ball is caught, which is always possible."""
RANDOM_SCORE = BALLS * (2 * PADDLE / GRID - 1)
"""Expected score of a policy that ignores its observations, such as uniformly random actions: -2.5.

The column of a ball is uniform and independent of the paddle, so that a ball is caught with probability
``p = PADDLE / GRID`` and its expected score is ``p - (1 - p)``.
"""


class Boards:
    """Many games of Catch with the same rules, each with its own random generator.

    A ball falls for `GRID` - 1 steps. It is shown once where it lands, and in the next step a new ball appears at the
    top, so that an episode has ``balls * GRID - 1`` steps.
    """

    def __init__(self, number: int, balls: int = BALLS, paddle: int = PADDLE) -> None:
        check_at_least(1, num_envs=number, balls=balls)
        if not 1 <= paddle < GRID:
            raise ValueError(f"paddle={paddle}: must be an integer in [1, {GRID - 1}]")
        self.number, self.balls, self.paddle = number, balls, paddle
        self.generators = [np.random.default_rng() for _ in range(number)]
        self._every = np.arange(number)
        self._columns, self._rows = np.zeros((2, number), np.int64)  # of the balls
        self._lefts, self._landed = np.zeros((2, number), np.int64)  # first column of each paddle, balls that landed

    def begin(self, which: npt.NDArray[np.int64] | None = None) -> None:
        """Start new episodes in all games, or in those with the indices ``which``."""
        which = self._every if which is None else which
        self._lefts[which] = (GRID - self.paddle) // 2
        self._landed[which] = 0
        self._drop(which)

    def _drop(self, which: npt.NDArray[np.int64]) -> None:
        self._rows[which] = 0
        self._columns[which] = [self.generators[game].integers(GRID) for game in which]

    def move(self, actions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Move the paddles and the balls by one step; actions are 0 left, 1 stay, 2 right.

        Returns:
            Rewards: 1 for a ball caught in this step, -1 for a ball missed, otherwise 0; and ends of episodes.
        """
        np.clip(self._lefts + np.asarray(actions) - 1, 0, GRID - self.paddle, out=self._lefts)
        landed = self._rows == GRID - 1
        self._rows += 1
        if landed.any():
            self._drop(np.flatnonzero(landed))
        landing = self._rows == GRID - 1
        self._landed += landing
        caught = (self._lefts <= self._columns) & (self._columns < self._lefts + self.paddle)
        rewards = np.where(landing, np.where(caught, 1, -1), 0).astype(np.float32)
        return rewards, landing & (self._landed == self.balls)

    def draw(self) -> Images:
        """Return images of the games, uint8 ``(number, 1, IMAGE_SIZE, IMAGE_SIZE)``, in a new array."""
        cells = np.zeros((self.number, GRID, CELL, GRID, CELL), np.uint8)
        for column in range(self.paddle):
            cells[self._every, GRID - 1, :, self._lefts + column] = PADDLE_VALUE
        cells[self._every, self._rows, :, self._columns] = BALL_VALUE
        return cells.reshape(self.number, 1, IMAGE_SIZE, IMAGE_SIZE)


def _observation_space() -> spaces.Box:
    return spaces.Box(0, 255, (1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)


def _to_rgb(image: Images) -> Images:
    """Convert an observation ``(1, H, W)`` to an RGB image ``(H, W, 3)``."""
    return np.repeat(image[0, :, :, None], 3, axis=2)


class CatchVecEnv(VecEnv):
    """Many games of Catch as one Stable-Baselines3 environment.

    Observations are uint8 ``(num_envs, 1, 84, 84)``, in a new array at every step. Actions are 0 left, 1 stay, 2 right.
    At the end of an episode, ``infos[i]["episode"]`` is that of Stable-Baselines3's `Monitor`.

    Args:
        num_envs: Number of games.
        seed: Game ``i`` is seeded with ``seed + i``. None: random seeds.
        balls: Number of balls in an episode.
        paddle: Width of the paddle in cells of 7 pixels, at most 11.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> env = CatchVecEnv(2, seed=0)
        >>> env.reset().shape
        (2, 1, 84, 84)
        >>> observations, rewards, dones, infos = env.step(np.array([0, 2]))
        >>> rewards
        array([0., 0.], dtype=float32)
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
        """Start a new episode of every game, with the seeds of `seed`."""
        for game, seed in enumerate(self._seeds):
            if seed is not None:
                self.boards.generators[game] = np.random.default_rng(seed)
        self._reset_seeds()
        self._reset_options()
        self._scores[:], self._lengths[:] = 0, 0
        self.boards.begin()
        return self.boards.draw()

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Set the actions of the next step, ``(num_envs,)``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step. Where an episode ends, the next one starts, as Stable-Baselines3 requires."""
        rewards, done = self.boards.move(self._actions)
        self._scores += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        images = self.boards.draw()
        if done.any():
            over, seconds = np.flatnonzero(done), round(time.monotonic() - self._started, 6)
            for game in over:
                score, length = float(self._scores[game]), int(self._lengths[game])
                infos[game]["terminal_observation"] = images[game].copy()
                infos[game]["episode"] = {"r": score, "l": length, "t": seconds}
            self._scores[over], self._lengths[over] = 0, 0
            self.boards.begin(over)
            images = self.boards.draw()
        return images, rewards, done, infos

    def close(self) -> None:
        """Do nothing: the games hold no resources."""

    def get_images(self) -> Sequence[Images]:
        """Return an RGB image of each game, uint8 ``(84, 84, 3)``."""
        return [_to_rgb(image) for image in self.boards.draw()]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of this object once for each game."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> NoReturn:
        """Raise `AttributeError`: single games have no attributes to set."""
        raise AttributeError(f"{attr_name}: single games of Catch have no attributes to set")

    def env_method(self, method_name: str, *args: object, indices: VecEnvIndices = None, **kwargs: object) -> NoReturn:
        """Raise `AttributeError`: single games have no methods."""
        raise AttributeError(f"{method_name}: single games of Catch have no methods")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for `Monitor` only, whose entry ``episode`` is in the infos."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]


class Catch(gymnasium.Env[Any, Any]):
    """One game of Catch as a Gymnasium environment; the same seed gives the same game as in `CatchVecEnv`.

    Args:
        balls: Number of balls in an episode.
        paddle: Width of the paddle in cells of 7 pixels, at most 11.
        render_mode: "rgb_array" for images from `render`; None for none.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import rl  # registers the name
        >>> env = gymnasium.make("CoordConv/Catch-v0", render_mode="rgb_array")
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, env.render().shape
        ((1, 84, 84), (84, 84, 3))
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
        """Start a new episode."""
        super().reset(seed=seed)
        self.boards.generators[0] = self.np_random
        self.boards.begin()
        return self.boards.draw()[0], {}

    def step(self, action: int) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        """Take a step, see `Boards.move`. Episodes are never truncated."""
        rewards, done = self.boards.move(np.array([action]))
        return self.boards.draw()[0], float(rewards[0]), bool(done[0]), False, {}

    def render(self) -> Images | None:
        """Return an RGB image, uint8 ``(84, 84, 3)``; None without a render mode."""
        return _to_rgb(self.boards.draw()[0]) if self.render_mode == "rgb_array" else None

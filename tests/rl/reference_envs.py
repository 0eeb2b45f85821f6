"""Environments to compare with: Stable-Baselines3's own Atari stack, and tiny ones that do whatever is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ale_py  # noqa: F401  # registers the games
import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import (
    ClipRewardEnv,
    EpisodicLifeEnv,
    FireResetEnv,
    MaxAndSkipEnv,
)
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

if TYPE_CHECKING:
    from numpy.typing import NDArray


def area_weights(size: int, small: int) -> NDArray[np.float64]:
    """``(small, size)``: the share that each pixel has of each of ``small`` equal parts of a line."""
    edges = np.linspace(0, size, small + 1)
    left, right = np.arange(size), np.arange(1, size + 1)
    overlap: NDArray[np.float64] = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
    return overlap.clip(0) * (small / size)


class AreaResize(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Grey frames ``(height, width)`` as ``(1, 84, 84)`` means over areas: `WarpFrame` without OpenCV."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        height, width = env.observation_space.shape or (0, 0)
        self.rows, self.columns = area_weights(height, 84), area_weights(width, 84)
        self.observation_space = spaces.Box(0, 255, (1, 84, 84), np.uint8)

    def observation(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        small: NDArray[np.uint8] = np.rint(self.rows @ frame @ self.columns.T).astype(np.uint8)
        return small[None]


def stock_atari(game: str, num_envs: int, *, episodic_life: bool = True, limit: int = 108_000) -> VecFrameStack:
    """Stable-Baselines3's `make_atari_env` and frame stack, without random no-ops and on the emulator's own grey.

    Args:
        game: A name such as "Breakout".
        num_envs: How many games.
        episodic_life: Whether a lost life ends an episode.
        limit: Frames after which a game is cut off.
    """

    def make() -> gymnasium.Env[Any, Any]:
        env: gymnasium.Env[Any, Any] = gymnasium.make(
            f"{game}NoFrameskip-v4", obs_type="grayscale", max_num_frames_per_episode=limit
        )
        env = MaxAndSkipEnv(Monitor(env), skip=4)
        if episodic_life:
            env = EpisodicLifeEnv(env)
        if "FIRE" in env.unwrapped.get_action_meanings():  # type: ignore[attr-defined]  # of AtariEnv
            env = FireResetEnv(env)
        return ClipRewardEnv(AreaResize(env))

    return VecFrameStack(DummyVecEnv([make] * num_envs), 4, channels_order="first")


class Walk(gymnasium.Env[dict[str, Any], Any]):
    """Ends after some steps that its seed decides, by itself or cut off, and tells something in some infos only.

    Args:
        fails_at: The step of its life in which it raises an error.
        nan_at: The step of its life in which the reward is NaN.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as gymnasium's environments have it

    def __init__(self, fails_at: int | None = None, nan_at: int | None = None) -> None:
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (8, 6, 1), np.uint8), "place": spaces.Box(-9, 9, (2,), np.float32)}
        )
        self.action_space = spaces.MultiDiscrete([3, 2])
        self.fails_at, self.nan_at = fails_at, nan_at
        self.life = self.steps = self.end = 0
        self.speed = 1.0
        self.render_mode = "rgb_array"

    def observe(self) -> dict[str, Any]:
        return {
            "image": self.np_random.integers(0, 256, (8, 6, 1), np.uint8),
            "place": self.np_random.normal(size=2).clip(-9, 9).astype(np.float32),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.end = 0, int((options or {}).get("end", self.np_random.integers(2, 9)))
        return self.observe(), {"end": self.end}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # any kind
        self.life += 1
        self.steps += 1
        if self.life == self.fails_at:
            raise RuntimeError("the floor\ngave way")
        info: dict[str, Any] = {"steps": self.steps}
        if self.steps % 2:
            info |= {"odd": {"word": "odd", "weight": 0.5 * self.steps}, "pair": np.array([self.steps, 1])}
        reward = float("nan") if self.life == self.nan_at else self.speed * float(action[0]) - 0.25 * float(action[1])
        over = self.steps >= self.end
        # An even end is one of its own, every third is a cut-off, and some are both.
        return (
            self.observe(),
            reward,
            over and self.end % 2 == 0,
            over and self.end % 6 != 2 and self.end % 6 != 4,
            info,
        )

    def render(self) -> Any:  # noqa: ANN401  # as in gymnasium
        return np.full((4, 4, 3), self.steps, np.uint8)

    def double(self, number: int) -> int:
        return 2 * number


def equal(one: Any, other: Any) -> None:  # noqa: ANN401  # whatever environments give
    """Asserts that two observations, infos or parts of them are the same, whatever they are made of."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), (one, other)
        for key, value in one.items():
            equal(value, other[key])
    else:
        np.testing.assert_array_equal(one, other)


def play_both(ours: VecEnv, stock: VecEnv, steps: int, leave_out: tuple[str, ...] = ()) -> tuple[int, int]:
    """Asserts that two environments do the same on the same random actions, step by step.

    Args:
        ours: One.
        stock: The other one.
        steps: How many.
        leave_out: What may differ in infos.

    Returns:
        How many episodes have ended, and how many of them were cut off.
    """
    assert ours.seed(5) == stock.seed(5)
    equal(ours.reset(), stock.reset())
    equal(ours.reset_infos, stock.reset_infos) if not leave_out else None
    ours.action_space.seed(0)
    episodes = cut_off = 0
    for _ in range(steps):
        actions = np.array([ours.action_space.sample() for _ in range(ours.num_envs)])
        (observations, rewards, dones, infos), theirs = ours.step(actions), stock.step(actions)
        equal(observations, theirs[0])
        equal(rewards, theirs[1])
        equal(dones, theirs[2])
        assert (rewards.dtype, dones.dtype) == (theirs[1].dtype, theirs[2].dtype)
        for info, other in zip(infos, theirs[3], strict=True):
            for name in leave_out:
                info.pop(name), other.pop(name)
            if "episode" in other:
                episodes += 1
                cut_off += info["TimeLimit.truncated"]
                assert info["episode"].pop("t") > 0
                other["episode"].pop("t")
            equal(info, other)
        equal(
            [info for info, done in zip(ours.reset_infos, dones, strict=True) if done and not leave_out],
            [info for info, done in zip(stock.reset_infos, dones, strict=True) if done and not leave_out],
        )
    return episodes, cut_off


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether all of these arrays are equal."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


class Recorder(gymnasium.Env[Any, Any]):
    """A black picture of 36 x 36 pixels, and a list of the actions that the game got. Episodes have four steps."""

    def __init__(self, action_space: spaces.Space[Any], image: tuple[int, int, int] = (36, 36, 1)) -> None:
        self.observation_space = spaces.Box(0, 255, image, np.uint8)
        self.action_space = action_space
        self.taken: list[Any] = []
        self.seeds: list[int] = []

    def observe(self) -> Any:  # noqa: ANN401  # an array
        return np.zeros(self.observation_space.shape or (), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds += [] if seed is None else [seed]
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # any kind
        self.taken.append(action)
        return self.observe(), 1.0, len(self.taken) % 4 == 0, False, {}

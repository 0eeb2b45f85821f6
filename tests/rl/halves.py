"""A tiny environment with images, for the tests of what Stable-Baselines3 does with policies of `rl`."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Kind = Literal["uint8", "float", "dict"]


class Halves(gym.Env[Any, np.int64]):
    """A bright square somewhere in a picture; naming its half, left or right, is rewarded. Episodes of four steps.

    Args:
        kind: Pictures of uint8, of float32 in [0, 1], or of uint8 in a dict with the time.
        shape: Shape of the pictures, channels first or last.
    """

    def __init__(self, kind: Kind = "uint8", shape: tuple[int, int, int] = (36, 40, 1)) -> None:
        dtype, high = (np.float32, 1) if kind == "float" else (np.uint8, 255)
        self.kind = kind
        self.picture: spaces.Box = spaces.Box(0, high, shape, dtype)
        self.observation_space = self.picture
        if kind == "dict":
            time = spaces.Box(0, 1, (1,), np.float32)
            self.observation_space = spaces.Dict({"picture": self.picture, "time": time})
        self.action_space = spaces.Discrete(2)
        self.channel = int(np.argmin(shape))
        self.width = shape[2] if self.channel == 0 else shape[1]
        self.time = 0
        self.column = 0

    def observe(self) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """The picture, or the picture and the time."""
        picture: NDArray[Any] = np.zeros(self.picture.shape, self.picture.dtype)
        columns = np.moveaxis(picture, 2 if self.channel == 0 else 1, 0)
        columns[self.column : self.column + 4] = self.picture.high.max()
        if self.kind == "dict":
            return {"picture": picture, "time": np.array([self.time / 4], np.float32)}
        return picture

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new square."""
        super().reset(seed=seed)
        self.time = 0
        self.column = int(self.np_random.integers(self.width - 4))
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Reward of 1 for the right half, and another square."""
        reward = float(action == (self.column + 2 >= self.width / 2))
        self.time += 1
        self.column = int(self.np_random.integers(self.width - 4))
        return self.observe(), reward, self.time == 4, False, {}

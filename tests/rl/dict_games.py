"""Tiny games with Dict observations: ``--model.game=tests.rl.dict_games:CatchParts-v0`` and ``Everything-v0``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

CELLS, PIXELS = 12, 3
"""Cells of the board in each direction, and pixels of a cell."""


class CatchParts(gymnasium.Env[dict[str, Any], Any]):
    """A ball falls, seen in an image; a paddle has to be below it, whose place is a number. 1 point, or -1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            ball=spaces.Box(0, 255, (CELLS * PIXELS, CELLS * PIXELS, 1), np.uint8), paddle=spaces.Box(-1, 1, (1,))
        )
        self.action_space = spaces.Discrete(3)
        self.row = self.column = self.paddle = 0

    def observe(self) -> dict[str, Any]:
        board = np.zeros((CELLS, CELLS, 1), np.uint8)
        board[self.row, self.column] = 255
        place = 2 * self.paddle / (CELLS - 1) - 1
        return {
            "paddle": np.array([place], np.float32),
            "ball": board.repeat(PIXELS, 0).repeat(PIXELS, 1),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.row, self.column, self.paddle = 0, int(self.np_random.integers(CELLS)), CELLS // 2
        return self.observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # a number
        self.paddle = int(np.clip(self.paddle + action - 1, 0, CELLS - 1))
        self.row += 1
        landed = self.row == CELLS - 1
        reward = (1.0 if abs(self.paddle - self.column) <= 1 else -1.0) if landed else 0.0
        return self.observe(), reward, landed, False, {}


class Everything(gymnasium.Env[dict[str, Any], Any]):
    """Random observations of every kind. Games are 3 to 8 steps long; one in three is cut off by a time limit."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            camera=spaces.Box(0, 255, (36, 40, 3), np.uint8),
            depth=spaces.Box(-1, 1, (1, 48, 36), np.float32),
            joints=spaces.Box(-np.inf, np.inf, (4,), np.float64),
            gear=spaces.Discrete(3),
            switches=spaces.MultiBinary(2),
            dials=spaces.MultiDiscrete([2, 4]),
            patch=spaces.Box(-1, 1, (2, 3, 2), np.float32),
        )
        self.action_space = spaces.Discrete(2)
        self.steps = self.length = 0

    def observe(self) -> dict[str, Any]:
        random = self.np_random
        return {
            "patch": random.uniform(-1, 1, (2, 3, 2)).astype(np.float32),
            "gear": int(random.integers(3)),
            "camera": random.integers(256, size=(36, 40, 3), dtype=np.uint8),
            "joints": random.normal(size=4),
            "depth": random.uniform(-1, 1, (1, 48, 36)).astype(np.float32),
            "switches": random.integers(2, size=2, dtype=np.int8),
            "dials": np.array([random.integers(2), random.integers(4)]),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(3, 9))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # a number
        self.steps += 1
        over = self.steps == self.length
        cut_off = self.length % 3 == 0
        return self.observe(), float(self.np_random.normal()) + action, over and not cut_off, over and cut_off, {}


for name in ("CatchParts", "Everything"):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", f"{__name__}:{name}")

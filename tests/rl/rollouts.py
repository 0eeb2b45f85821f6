"""Rollouts of random numbers, as Stable-Baselines3's buffer and as ours."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from rl.learning.rollouts import FinishedGames, Rollout
from tests.rl.training import SIDE

STEPS, ENVIRONMENTS = 6, 4


def random_buffer(seed: int = 0) -> RolloutBuffer:
    """SB3's buffer with something in each of its arrays."""
    space = spaces.Box(0, 255, (1, SIDE, SIDE), np.uint8)
    buffer = RolloutBuffer(STEPS, space, spaces.Discrete(2), "cpu", gae_lambda=0.95, gamma=0.9, n_envs=ENVIRONMENTS)
    random = np.random.default_rng(seed)
    for _ in range(STEPS):
        buffer.add(
            random.integers(256, size=(ENVIRONMENTS, 1, SIDE, SIDE), dtype=np.uint8),
            random.integers(2, size=ENVIRONMENTS),
            random.normal(size=ENVIRONMENTS).astype(np.float32),
            random.random(ENVIRONMENTS) < 0.3,
            torch.tensor(random.normal(size=ENVIRONMENTS), dtype=torch.float32),
            torch.tensor(random.uniform(-0.8, -0.6, ENVIRONMENTS), dtype=torch.float32),
        )
    last = torch.tensor(random.normal(size=ENVIRONMENTS), dtype=torch.float32)
    buffer.compute_returns_and_advantage(last, np.arange(ENVIRONMENTS) % 2 == 0)
    return buffer


def as_rollout(buffer: RolloutBuffer, first: int = 0, number: int = ENVIRONMENTS) -> Rollout:
    own = slice(first, first + number)
    return Rollout(
        torch.tensor(buffer.observations[:, own]),
        torch.tensor(buffer.actions[:, own, 0], dtype=torch.int64),
        torch.tensor(buffer.log_probs[:, own]),
        torch.tensor(buffer.advantages),
        torch.tensor(buffer.values),
        first,
        FinishedGames([], [], []),
    )

"""Advantages against Stable-Baselines3's own code."""

from __future__ import annotations

import numpy as np
import torch

from rl.learning.rollouts import compute_advantages
from tests.rl.rollouts import ENVIRONMENTS, random_buffer


def test_advantages_are_those_of_sb3() -> None:
    buffer = random_buffer()
    random = np.random.default_rng(5)
    last = random.normal(size=ENVIRONMENTS).astype(np.float32)
    dones = np.array([True, False, False, True])
    buffer.compute_returns_and_advantage(torch.tensor(last), dones)
    own = compute_advantages(
        buffer.rewards, buffer.values, buffer.episode_starts > 0, last, dones, gamma=0.9, gae_lambda=0.95
    )
    np.testing.assert_array_equal(own, buffer.advantages)

"""Advantages against Stable-Baselines3's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance

from rl.learning.rollouts import compute_advantages, explained_variance
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


def test_explained_variance_is_that_of_sb3() -> None:
    values, returns = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = sb3_explained_variance(values.flatten().numpy(), returns.flatten().numpy())
    assert explained_variance(values, returns).item() == pytest.approx(expected, rel=1e-5)
    assert math.isnan(explained_variance(values, torch.ones(5, 3)))

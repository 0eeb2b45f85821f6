"""Sliced Wasserstein distance against an optimal assignment of the projections."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from generative.metrics.sliced_wasserstein import DIRECTIONS, sliced_wasserstein_distance
from tests.generative.metrics.point_clouds import normal


def test_sliced_wasserstein_equals_an_optimal_assignment_of_the_projections() -> None:
    real, generated = normal(40, 2), normal(40, 2, seed=1) * torch.tensor([2.0, 0.5]) + 1
    total = 0.0
    for number in range(DIRECTIONS):
        angle = math.pi * number / DIRECTIONS
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        costs = ((real @ direction)[:, None] - generated @ direction).square().numpy()
        total += costs[linear_sum_assignment(costs)].mean()
    expected = math.sqrt(total / DIRECTIONS)
    assert sliced_wasserstein_distance(real, generated) == pytest.approx(expected)
    # As many times as many points in the same places are the same cloud.
    assert sliced_wasserstein_distance(real, generated.repeat(3, 1)) == pytest.approx(expected)
    assert sliced_wasserstein_distance(real.repeat(3, 1), generated) == pytest.approx(expected)


def test_sliced_wasserstein_of_a_moved_cloud() -> None:
    real = normal(50, 2)
    assert sliced_wasserstein_distance(real, real.flip(0)) == pytest.approx(0)
    moved = real + torch.tensor([3.0, 4.0])
    assert sliced_wasserstein_distance(real, moved) == pytest.approx(5 / math.sqrt(2))

"""Metrics of histograms against NumPy and SciPy, and of extreme cases."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import Tensor

from generative.metrics.histograms import bins_per_axis, count_points, histogram_metrics
from tests.generative.metrics.point_clouds import normal


def test_histograms_equal_numpys() -> None:
    real, generated = 10 * normal(300, 2), 6 * normal(200, 2, seed=1) + 3
    edges = np.linspace(-20, 20, 8)
    for points in (real, generated):
        count = count_points(points, 20, 7)
        # What lies beyond counts in the outermost bins.
        x, y = points.clamp(-19.9, 19.9).numpy().T
        expected, _, _ = np.histogram2d(y, x, bins=[edges, edges])
        assert np.array_equal(count.numpy().reshape(7, 7), expected)


def test_metrics_equal_scipys_and_the_test_of_two_proportions() -> None:
    clouds = (10 * normal(300, 2), 6 * normal(200, 2, seed=1) + 3)
    counts = [count_points(points, 30, 8) for points in clouds]
    real, generated = (count.numpy() for count in counts)
    p, q = real / real.sum(), generated / generated.sum()
    different = []
    for a, b in zip(real, generated, strict=True):
        if a + b:
            pooled = (a + b) / (300 + 200)
            z = (a / 300 - b / 200) / math.sqrt(pooled * (1 - pooled) * (1 / 300 + 1 / 200))
            different.append(math.erfc(abs(z) / math.sqrt(2)) < 0.05)
    assert 0 < sum(different) < len(different) < 64
    assert histogram_metrics(*counts) == pytest.approx(
        {
            "bin_coverage": sum(1 for a, b in zip(real, generated, strict=True) if a and b) / (real > 0).sum(),
            "entropy": entropy(q, base=2),
            "entropy_reduction": 1 - entropy(q) / entropy(p),
            "js_divergence": jensenshannon(p, q, base=2) ** 2,
            "different_bins": sum(different) / len(different),
        },
        abs=1e-12,
    )


def test_metrics_of_extreme_histograms_are_those_by_hand() -> None:
    real = torch.tensor([5.0, 5, 5, 5, 0], dtype=torch.float64)
    cases: dict[str, tuple[Tensor, list[float | None]]] = {
        "the same": (real, [1, 2, 0, 0, 0]),
        "all in one bin": (torch.tensor([20.0, 0, 0, 0, 0]), [0.25, 0, 1, None, 1]),
        "all elsewhere": (torch.tensor([0.0, 0, 0, 0, 20]), [0, 0, 1, 1, 1]),
        "nothing": (torch.zeros(5), [0, 0, 1, 1, 1]),
    }
    names = ["bin_coverage", "entropy", "entropy_reduction", "js_divergence", "different_bins"]
    for name, (generated, expected) in cases.items():
        metrics = histogram_metrics(real, generated.double())
        for key, value in zip(names, expected, strict=True):
            if value is not None:
                assert metrics[key] == pytest.approx(value), (name, key)
    assert not any(math.copysign(1, value) < 0 for value in metrics.values()), "no -0"


def test_bins_get_about_ten_points_each() -> None:
    assert [bins_per_axis(number) for number in (1, 10, 90, 250, 1000, 5000)] == [2, 2, 3, 5, 10, 22]

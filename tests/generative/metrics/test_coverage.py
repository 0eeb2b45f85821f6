"""Precision, recall, density and coverage against scikit-learn's nearest neighbours, and of extreme cases."""

import math

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from generative.metrics import precision_recall_density_coverage
from tests.generative.metrics.point_clouds import normal


def neighbours_by_sklearn(real: Tensor, generated: Tensor, number: int, k: int) -> dict[str, float]:
    def balls(points: Tensor) -> tuple[NearestNeighbors, np.ndarray]:
        tree = NearestNeighbors(n_neighbors=k + 1).fit(points.numpy())
        return tree, tree.kneighbors(points.numpy())[0][:, k]

    def inside(center: np.ndarray, radius: float, points: Tensor) -> list[bool]:
        return [math.dist(center, point) <= radius + 1e-9 for point in points.tolist()]

    hits = np.array([inside(c, r, generated) for c, r in zip(real.numpy(), balls(real)[1], strict=True)])
    recalled = np.array([inside(c, r, real) for c, r in zip(generated.numpy(), balls(generated)[1], strict=True)])
    return {
        "precision": hits.any(0).sum() / number,
        "recall": recalled.any(0).mean(),
        "density": hits.sum() / (k * number),
        "coverage": hits.any(1).mean(),
    }


@pytest.mark.parametrize("case", ["apart", "lattice", "copies"])
def test_metrics_equal_those_computed_with_sklearn(case: str) -> None:
    real, generated = normal(70, 4), normal(50, 4, seed=1) + 0.7
    if case == "lattice":  # most distances tie
        real, generated = (2 * real).round(), (2 * generated).round()
    if case == "copies":
        generated = generated[:4].repeat_interleave(13, 0)[:50]
    for k, number in ((5, 50), (2, 50), (5, 80)):  # 30 of the last are nowhere
        metrics = precision_recall_density_coverage(real, generated, number, k)
        assert metrics == pytest.approx(neighbours_by_sklearn(real, generated, number, k), abs=1e-12)
        assert 0 < metrics["coverage"] < 1


def test_metrics_of_extreme_cases() -> None:
    real = normal(40, 4)
    same = precision_recall_density_coverage(real, real, 40)
    assert {key: same[key] for key in ("precision", "recall", "coverage")} == {
        "precision": 1,
        "recall": 1,
        "coverage": 1,
    }
    assert same["density"] >= 1
    for nowhere in (real + 100, real[:0]):
        assert set(precision_recall_density_coverage(real, nowhere, 40).values()) == {0}
    assert set(precision_recall_density_coverage(real, real[:0]).values()) == {0}, "no samples at all"
    few = precision_recall_density_coverage(real, real[:5], 40)
    assert few["recall"] == 0, "five points have no fifth neighbour"
    assert few["precision"] == 5 / 40

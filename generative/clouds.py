"""Figures that compare two clouds of points: pure functions, usable on anybody's points.

Points are float64 tensors on the CPU, one a row, in pixels. ``real`` is the cloud to compare with and must not be
empty; ``generated`` may be, and then gets the worst value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.spatial import cKDTree
from scipy.special import ndtri
from torch import Tensor

NEIGHBOURS = 5
"""k of precision, recall, density and coverage (Naeem et al., 2020)."""

PER_BIN = 10
"""Points to a bin of a histogram, on average over the square it divides."""

SIGNIFICANCE = 0.05
"""Level of the test whether two bins differ."""

DIRECTIONS = 32
"""Directions onto which `sliced_wasserstein` projects, evenly spaced over half a turn."""

_ROWS = 512  # of a matrix of distances at a time
_ROUNDING = 1 + 1e-9  # for radii: a point at the same distance is inside, whatever the rounding


def neighbour_figures(real: Tensor, generated: Tensor, number: int, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020).

    A point's ball reaches to its k-th nearest neighbour in its own cloud, itself not counted; what lies on its surface
    is inside. So points on a lattice, whose distances tie, count the same in whatever order they come; more than k
    copies of a point have balls of radius 0.

    - ``precision``: share of generated points inside any real ball, in [0, 1].
    - ``recall``: share of real points inside any generated ball, in [0, 1]; 0 for up to k generated points.
    - ``density``: mean number of real balls around a generated point, over k; about 1 for equal distributions.
    - ``coverage``: share of real balls with a generated point inside, in [0, 1].

    Args:
        real: ``(m, D)``, m above k.
        generated: ``(n, D)``.
        number: Points generated, at least n; those that are not in ``generated`` are nowhere, inside no ball.
        k: Which neighbour gives a ball's radius.

    Returns:
        The four figures by name.
    """
    radii = _radii(real, k)
    balls_around = torch.zeros(len(generated))
    points_inside = torch.zeros(len(real))
    for start in range(0, len(generated), _ROWS):
        inside = _distances(generated[start : start + _ROWS], real) <= radii
        balls_around[start : start + _ROWS] = inside.sum(1).float()
        points_inside += inside.sum(0)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    if len(generated) > k:
        generated_radii = _radii(generated, k)
        for start in range(0, len(real), _ROWS):
            inside = _distances(real[start : start + _ROWS], generated) <= generated_radii
            recalled[start : start + _ROWS] = inside.any(1)
    return {
        "precision": float((balls_around > 0).sum()) / number,
        "recall": float(recalled.double().mean()),
        "density": float(balls_around.double().sum()) / (k * number),
        "coverage": float((points_inside > 0).double().mean()),
    }


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point from its k-th nearest neighbour."""
    distances, _ = cKDTree(points.numpy()).query(points.numpy(), [k + 1])
    return torch.from_numpy(distances[:, 0]) * _ROUNDING


def _distances(points: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


class Histograms(NamedTuple):
    """Counts of two clouds in the same bins, float64 ``(bins,)`` each."""

    real: Tensor
    generated: Tensor


def histograms(real: Tensor, generated: Tensor, low: float, high: float, bins: int) -> Histograms:
    """Counts points of the plane in the squares of a grid.

    Args:
        real: ``(m, 2)``.
        generated: ``(n, 2)``.
        low: Where the grid begins, along x and y; what lies beyond counts in the outermost squares.
        high: Where it ends.
        bins: Squares along each axis.

    Returns:
        Counts in ``bins**2`` squares.
    """

    def count(points: Tensor) -> Tensor:
        x, y = ((points - low) / (high - low) * bins).floor().long().clamp(0, bins - 1).unbind(1)
        return torch.bincount(y * bins + x, minlength=bins**2).double()

    return Histograms(count(real), count(generated))


def bins_for(number: int) -> int:
    """Squares along each axis of a grid for so many points: `PER_BIN` points to each, at least 2 x 2 of them."""
    return max(2, math.isqrt(number // PER_BIN))


def histogram_figures(counts: Histograms) -> dict[str, float]:
    """What the histogram of a cloud says about it, beside that of another.

    - ``bin_coverage``: share of bins with real points that have generated ones, in [0, 1]; 0 without any.
    - ``entropy``: of the generated histogram, in bits; 0 without points.
    - ``entropy_reduction``: ``(H_real - H) / H_real``; 0 for equal histograms, 1 for one bin only and without points.
    - ``js_divergence``: Jensen-Shannon divergence to base 2, in [0, 1]; 1 without generated points.
    - ``different_bins``: share of bins, of those with points, whose shares of real and of generated points differ
      by the two-proportion z-test at `SIGNIFICANCE` (Richardson and Weiss, 2018: NDB/K); 1 without generated points.

    Args:
        counts: Of the real and the generated points.

    Returns:
        The five figures by name.
    """
    real, generated = counts
    entropy, real_entropy = _entropy(generated), _entropy(real)
    worst = not generated.any()
    return {
        "bin_coverage": float((generated[real > 0] > 0).double().mean()),
        "entropy": entropy,
        "entropy_reduction": (real_entropy - entropy) / real_entropy if real_entropy > 0 else float(worst),
        "js_divergence": 1.0 if worst else _js_divergence(real, generated),
        "different_bins": 1.0 if worst else _different_bins(real, generated),
    }


def _entropy(counts: Tensor) -> float:
    """In bits; 0 of nothing."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log2()).sum()) + 0.0


def _js_divergence(counts: Tensor, others: Tensor) -> float:
    p, q = counts / counts.sum(), others / others.sum()
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return min(max(divergence, 0.0), 1.0)


def _different_bins(counts: Tensor, others: Tensor) -> float:
    filled = counts + others > 0
    n, m = counts.sum(), others.sum()
    counts, others = counts[filled], others[filled]
    pooled = (counts + others) / (n + m)
    deviation = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    different = (counts / n - others / m).abs() > -float(ndtri(SIGNIFICANCE / 2)) * deviation
    return float(different.double().mean())


def sliced_wasserstein(real: Tensor, generated: Tensor) -> float:
    """Sliced 2-Wasserstein distance of points in the plane, in pixels (Bonneel et al., 2015).

    The root of the mean, over `DIRECTIONS` fixed directions, of the squared 2-Wasserstein distance of the
    projections. Of a cloud moved by d pixels it is d over the root of 2.

    Args:
        real: ``(m, 2)``.
        generated: ``(n, 2)``, n from 1. Unless n is m, its quantiles stand for its points.

    Returns:
        The distance, from 0.
    """
    angles = torch.arange(DIRECTIONS, dtype=torch.float64) * torch.pi / DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    real_order, generated_order = ((points @ directions).sort(0).values for points in (real, generated))
    index = ((torch.arange(len(real)) * 2 + 1) * len(generated)) // (2 * len(real))
    return float((real_order - generated_order[index]).square().mean().sqrt())


def support_size(points: Tensor, kinds: Tensor) -> float:
    """Birthday-paradox estimate of how many different points a generator makes (Arora and Zhang, 2018).

    With n points, ``n (n - 1) / 2`` over the number of pairs that are the same. Without such a pair it is
    ``n (n - 1) / 2``, the most that n points can tell; without any point 0.

    Args:
        points: ``(n, D)``; the same are those that differ by half a pixel at most in every coordinate.
        kinds: ``(n, E)`` integers; the same are equal ones.

    Returns:
        The estimate.
    """
    n = len(points)
    if n < 2:
        return float(n)
    # Kinds as coordinates, further apart than points are the same.
    tree = cKDTree(torch.cat([points, 2.0 * kinds], 1).numpy())
    same = (int(tree.count_neighbors(tree, 0.5 * _ROUNDING, p=float("inf"))) - n) // 2
    return n * (n - 1) / 2 / max(same, 1)

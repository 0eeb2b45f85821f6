"""Metrics of the 2-D histogram of a generated point cloud, compared with that of real data."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.special import ndtri
from torch import Tensor

POINTS_PER_BIN = 10
"""Mean number of points in a bin of the square that the histogram divides."""

SIGNIFICANCE = 0.05
"""Level of the test whether two bins differ."""


class Histograms(NamedTuple):
    """Counts of two point clouds in the same bins.

    Attributes:
        real: float64 ``(bins,)``.
        generated: float64 ``(bins,)``.
    """

    real: Tensor
    generated: Tensor


def count_points(real: Tensor, generated: Tensor, low: float, high: float, bins: int) -> Histograms:
    """Count the points of two clouds in the squares of a grid.

    Args:
        real: ``(m, 2)``.
        generated: ``(n, 2)``.
        low: Lower end of the grid along x and y. Points outside the grid count in the outermost squares.
        high: Upper end of the grid along x and y.
        bins: Number of squares along each axis.

    Returns:
        Counts in ``bins**2`` squares.
    """

    def count(points: Tensor) -> Tensor:
        x, y = ((points - low) / (high - low) * bins).floor().long().clamp(0, bins - 1).unbind(1)
        return torch.bincount(y * bins + x, minlength=bins**2).double()

    return Histograms(count(real), count(generated))


def bins_per_axis(number: int) -> int:
    """Return the number of bins along each axis for so many points: `POINTS_PER_BIN` in each bin, but at least 2."""
    return max(2, math.isqrt(number // POINTS_PER_BIN))


def histogram_metrics(counts: Histograms) -> dict[str, float]:
    """Compare the histogram of a generated cloud with that of real data.

    - ``bin_coverage``: share of the bins with real points that also contain generated points, in [0, 1].
    - ``entropy``: entropy of the generated histogram, in bits; 0 without generated points.
    - ``entropy_reduction``: ``(H_real - H) / H_real``: 0 for equal histograms; 1 if all points are in one bin, or if
      there are none.
    - ``js_divergence``: Jensen-Shannon divergence to base 2, in [0, 1]; 1 without generated points.
    - ``different_bins``: share of the bins with points in which the shares of real and of generated points differ by
      the two-proportion z-test at `SIGNIFICANCE` (NDB/K; Richardson and Weiss, 2018); 1 without generated points.

    Args:
        counts: Counts of the real and the generated points.

    Returns:
        The five metrics by name.

    Example:
        >>> import torch
        >>> counts = Histograms(real=torch.tensor([50.0, 50, 50, 50]), generated=torch.tensor([100.0, 100, 0, 0]))
        >>> metrics = histogram_metrics(counts)
        >>> metrics["bin_coverage"], metrics["entropy"], metrics["entropy_reduction"]
        (0.5, 1.0, 0.5)
    """
    real, generated = counts
    entropy, real_entropy = _entropy(generated), _entropy(real)
    empty = not generated.any()
    return {
        "bin_coverage": float((generated[real > 0] > 0).double().mean()),
        "entropy": entropy,
        "entropy_reduction": (real_entropy - entropy) / real_entropy if real_entropy > 0 else float(empty),
        "js_divergence": 1.0 if empty else _js_divergence(real, generated),
        "different_bins": 1.0 if empty else _different_bins(real, generated),
    }


def _entropy(counts: Tensor) -> float:
    """Return the entropy in bits; 0 for an empty histogram."""
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

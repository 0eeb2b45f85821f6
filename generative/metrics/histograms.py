"""Metrics that compare the 2-D histogram of a generated point cloud with that of real data."""

from __future__ import annotations

import math

import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import ndtri
from torch import Tensor

POINTS_PER_BIN = 10  # mean number of points in a bin of the histogram
SIGNIFICANCE = 0.05  # level of the test whether two bins differ


def count_points(points: Tensor, half_width: float, bins: int) -> Tensor:
    """Count points in a square around 0 that is divided into ``bins**2`` squares.

    Args:
        points: ``(n, 2)``. Those outside the square count in its outermost bins.
        half_width: Half the side of the square.
        bins: Number of bins along each axis.

    Returns:
        float64 ``(bins**2,)``.
    """
    x, y = ((points + half_width) / (2 * half_width) * bins).floor().long().clamp(0, bins - 1).unbind(1)
    return torch.bincount(y * bins + x, minlength=bins**2).double()


def bins_per_axis(number: int) -> int:
    """Return the number of bins along each axis for ``number`` points: `POINTS_PER_BIN` in each bin, but at least 2."""
    return max(2, math.isqrt(number // POINTS_PER_BIN))


def histogram_metrics(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Compare the histogram of a generated cloud, counts ``(bins,)``, with that of real data.

    - ``bin_coverage``: fraction of the bins with real points that also contain generated points, in [0, 1].
    - ``entropy``: entropy of the generated histogram, in bits; 0 without generated points.
    - ``entropy_reduction``: ``(H_real - H) / H_real``: 0 for equal histograms; 1 if all points are in one bin, or if
      there are none.
    - ``js_divergence``: Jensen-Shannon divergence to base 2, in [0, 1]; 1 without generated points.
    - ``different_bins``: fraction of the bins with points whose proportions of real and of generated points differ by
      the two-proportion z-test at `SIGNIFICANCE` (NDB/K; Richardson and Weiss, 2018); 1 without generated points.

    Example:
        >>> import torch
        >>> metrics = histogram_metrics(torch.tensor([50.0, 50, 50, 50]), torch.tensor([100.0, 100, 0, 0]))
        >>> metrics["bin_coverage"], metrics["entropy"], metrics["entropy_reduction"]
        (0.5, 1.0, 0.5)
    """
    entropy, real_entropy = _entropy(generated), _entropy(real)
    empty = not generated.any()
    return {
        "bin_coverage": float((generated[real > 0] > 0).double().mean()),
        "entropy": entropy,
        "entropy_reduction": (real_entropy - entropy) / real_entropy if real_entropy > 0 else float(empty),
        "js_divergence": 1.0 if empty else float(jensenshannon(real, generated, base=2)) ** 2,
        "different_bins": 1.0 if empty else _different_bins(real, generated),
    }


def _entropy(counts: Tensor) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log2()).sum()) + 0.0  # not -0


def _different_bins(counts: Tensor, others: Tensor) -> float:
    filled = counts + others > 0
    n, m = counts.sum(), others.sum()
    counts, others = counts[filled], others[filled]
    pooled = (counts + others) / (n + m)
    deviation = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    different = (counts / n - others / m).abs() > -float(ndtri(SIGNIFICANCE / 2)) * deviation
    return float(different.double().mean())

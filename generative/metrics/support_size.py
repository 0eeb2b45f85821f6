"""Estimate the number of different samples that a generator makes, by the birthday paradox."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

_TIE_TOLERANCE = 1 + 1e-9  # factor of a distance: exactly half a pixel counts as equal, whatever the rounding


def support_size(points: Tensor, kinds: Tensor) -> float:
    """Estimate the number of different samples of a generator by the birthday paradox (Arora and Zhang, 2018).

    The estimate from n samples is ``n (n - 1) / 2`` divided by the number of equal pairs. Without an equal pair it is
    ``n (n - 1) / 2``, the most that n samples can show; for a single sample it is 1, without samples 0.

    Args:
        points: float64 ``(n, D)``. Samples can be equal if they differ by at most half a pixel in every coordinate.
        kinds: int64 ``(n, E)``. Samples can be equal if all these numbers are the same.

    Example:
        >>> import torch
        >>> points = torch.arange(10.0, dtype=torch.float64)[:, None].repeat(2, 1)  # every sample twice
        >>> support_size(points, torch.zeros(20, 1, dtype=torch.int64))
        19.0
    """
    n = len(points)
    if n < 2:
        return float(n)
    # As coordinates, different kinds are further apart than equal points can be.
    tree = cKDTree(torch.cat([points, 2.0 * kinds], 1).numpy())
    same = (int(tree.count_neighbors(tree, 0.5 * _TIE_TOLERANCE, p=float("inf"))) - n) // 2
    return n * (n - 1) / 2 / max(same, 1)

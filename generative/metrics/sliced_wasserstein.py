"""Sliced Wasserstein distance of point clouds in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 32  # directions onto which points are projected, evenly spaced over half a turn


def sliced_wasserstein_distance(real: Tensor, generated: Tensor) -> float:
    """Compute the sliced 2-Wasserstein distance of points in the plane, in pixels (Bonneel et al., 2015).

    It is the root of the mean, over `DIRECTIONS` fixed directions, of the squared 2-Wasserstein distance of the
    projections. For a cloud that is shifted by d pixels it is ``d / sqrt(2)``.

    Args:
        real: float64 ``(m, 2)`` in pixels.
        generated: float64 ``(n, 2)`` in pixels, n at least 1. If n differs from m, quantiles stand for its points.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0, 0.0], [8.0, 2.0], [5.0, 9.0]], dtype=torch.float64)
        >>> round(sliced_wasserstein_distance(points, points + torch.tensor([3.0, 4.0])), 3)  # 5 / sqrt(2)
        3.536
    """
    angles = torch.arange(DIRECTIONS, dtype=torch.float64) * torch.pi / DIRECTIONS
    directions = torch.stack([angles.cos(), angles.sin()])
    real_sorted, generated_sorted = ((points @ directions).sort(0).values for points in (real, generated))
    index = ((torch.arange(len(real)) * 2 + 1) * len(generated)) // (2 * len(real))
    return float((real_sorted - generated_sorted[index]).square().mean().sqrt())

"""Precision, recall, density and coverage of a generated point cloud."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

NEIGHBOURS = 5  # k of precision, recall, density and coverage (Naeem et al., 2020)
_CHUNK = 512  # rows of a distance matrix that are computed at a time
_TIE_TOLERANCE = 1 + 1e-9  # factor of radii: a point at exactly the same distance is inside, whatever the rounding


def precision_recall_density_coverage(
    real: Tensor, generated: Tensor, num_generated: int | None = None, k: int = NEIGHBOURS
) -> dict[str, float]:
    """Compute precision and recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020).

    Each point has a ball that reaches to its k-th nearest neighbour within its own cloud, the point itself not counted.
    Points on the surface of a ball are inside, so that ties between distances, as on a lattice, do not matter.

    - ``precision``: fraction of generated points inside any real ball, in [0, 1].
    - ``recall``: fraction of real points inside any generated ball, in [0, 1]; 0 for at most k generated points.
    - ``density``: mean number of real balls around a generated point, divided by k; about 1 for equal distributions.
    - ``coverage``: fraction of real balls that contain a generated point, in [0, 1].

    Args:
        real: float64 ``(m, D)`` on the CPU, m above k.
        generated: float64 ``(n, D)`` on the CPU; n may be 0.
        num_generated: Number of generated samples; those without a point (invalid images) lie outside every ball.
            None: n.
        k: The radius of a ball is the distance to the k-th neighbour.

    Example:
        >>> import torch
        >>> real = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> left_half = real[real[:, 0] < 0.5]
        >>> metrics = precision_recall_density_coverage(real, left_half)
        >>> {name: round(value, 1) for name, value in metrics.items()}
        {'precision': 1.0, 'recall': 0.6, 'density': 1.2, 'coverage': 0.6}
    """
    number = max(len(generated) if num_generated is None else num_generated, 1)  # without samples, all four are 0
    radii = _radii(real, k)
    balls_around = torch.zeros(len(generated))
    points_inside = torch.zeros(len(real))
    for start in range(0, len(generated), _CHUNK):
        inside = exact_distances(generated[start : start + _CHUNK], real) <= radii
        balls_around[start : start + _CHUNK] = inside.sum(1).float()
        points_inside += inside.sum(0)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    if len(generated) > k:
        generated_radii = _radii(generated, k)
        for start in range(0, len(real), _CHUNK):
            inside = exact_distances(real[start : start + _CHUNK], generated) <= generated_radii
            recalled[start : start + _CHUNK] = inside.any(1)
    return {
        "precision": float((balls_around > 0).sum()) / number,
        "recall": float(recalled.double().mean()),
        "density": float(balls_around.double().sum()) / (k * number),
        "coverage": float((points_inside > 0).double().mean()),
    }


def _radii(points: Tensor, k: int) -> Tensor:
    distances, _ = cKDTree(points.numpy()).query(points.numpy(), [k + 1])
    return torch.from_numpy(distances[:, 0]) * _TIE_TOLERANCE


def exact_distances(points: Tensor, others: Tensor) -> Tensor:
    """Compute the Euclidean distances of all pairs, without the rounding errors of a matrix product."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")

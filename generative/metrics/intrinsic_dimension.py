"""Estimate the intrinsic dimension of a point cloud in the plane: 2 for an area, 1 for a curve, 0 for a point.

Both estimates work at a scale of several pixels. At this scale neither the integer coordinates of real centres nor
noise around a curve matter. Near the edge of a cloud, neighbours lie on one side only, which lowers the estimate for an
area. Points whose neighbourhood has an off-centre centre of mass are therefore left out if others remain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generative.metrics.coverage import exact_distances

SUBSET_SIZE = 8
"""Number of points in each subset of `intrinsic_dimension`: few, so that they lie several pixels apart. Spread over the
44 x 44 pixels of the data at 64 x 64, the first and second neighbours are about 8 and 12 pixels away; on a ring with a
radius of 0.35 times the image's width, 9 and 18. At 32 x 32 the distances are half as large."""

RESOLUTION = 1.0  # points at most this many pixels apart count as being at the same place
NEIGHBOURHOOD = 0.12
"""Radius of the neighbourhoods of `local_dimension`, relative to the image's width: 7.7 pixels at 64 x 64."""

_QUERIES = 8000  # points whose neighbours are measured, each several times if there are fewer
_REFERENCE_POINTS = 1000  # points that are used to find the edge of the cloud
_EDGE_RADIUS = 1.25  # radius of the neighbourhoods used there, relative to the distance of the second neighbour
_MAX_OFFSET = 0.15  # of the centre of mass, relative to that radius; 0.42 for half a disc
_MIN_NEIGHBOURS = 12  # points in a neighbourhood of `local_dimension`
_CHUNK = 1000  # rows of a distance matrix that are computed at a time


def intrinsic_dimension(points: Tensor, subset_size: int = SUBSET_SIZE, seed: int = 0) -> float:
    """Estimate the dimension from two nearest neighbours (TwoNN; Facco et al., 2017), in random subsets of the points.

    If points are spread evenly in d dimensions, the logarithm of the ratio of the distances to the second and the first
    neighbour has mean 1/d, whatever the density. The ratios are taken within small random subsets, which sets the scale
    of the estimate. Each coordinate is first moved by up to half a pixel at random, so that integers do not tie. A
    point whose second neighbour is within `RESOLUTION` counts as dimension 0.

    Measured values with 250 to 5,000 points: centres of the data 1.9 to 2.1; a ring or a line (exact, rounded to pixels
    or with noise of half a pixel) 1.0 to 1.2 at 64 x 64 and up to 1.3 at 32 x 32; a point 0; half a ring and half the
    data 1.7.

    Args:
        points: ``(n, 2)``, in pixels. For fewer than three points the dimension is 0.
        subset_size: Number of points in a subset. A cloud twice as wide needs four times as many for the same scale.
        seed: Seed of the random numbers.

    Example:
        >>> import torch
        >>> t = torch.rand(1000, generator=torch.Generator().manual_seed(0))
        >>> line = 60 * torch.stack([t, t / 2], 1)
        >>> square = 60 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> round(intrinsic_dimension(line), 1), round(intrinsic_dimension(square), 1)
        (1.1, 2.0)
    """
    subset_size = min(subset_size, len(points))
    if subset_size < 3:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    points = _jitter_and_shuffle(points, generator)
    chosen = points[_subsets(len(points), subset_size, generator)]
    _, near, far = exact_distances(chosen, chosen).topk(3, largest=False).values.flatten(0, 1).unbind(1)
    apart = far > RESOLUTION
    if not apart.any():
        return 0.0
    places, near, far = chosen.flatten(0, 1)[apart], near[apart], far[apart]
    inside, _, _ = _moments(places, points[:_REFERENCE_POINTS], _EDGE_RADIUS * far)
    ratios = (far / near)[inside] if inside.any() else far / near
    # With very few points, a single ratio of 1 up to rounding must not make the result infinite.
    return float(apart.double().mean() / ratios.log().mean().clamp(min=0.1))


def local_dimension(points: Tensor, image_size: int, seed: int = 0) -> float:
    """Estimate the dimension by local principal component analysis, as the mean over neighbourhoods.

    A neighbourhood has a radius of `NEIGHBOURHOOD` times the image's width, and at least 12 points. With the variances
    a and b along its principal axes, its dimension is the participation ratio ``(a + b)**2 / (a**2 + b**2)``: 1 if b is
    0, 2 if a equals b. It is 0 if the larger variance is below `RESOLUTION` squared. As in `intrinsic_dimension`, each
    coordinate is first moved by up to half a pixel at random.

    Args:
        points: ``(n, 2)``, in pixels. For fewer than three points the dimension is 0.
        image_size: Width of the image, in pixels.
        seed: Seed of the random numbers.

    Example:
        >>> import torch
        >>> angle = 6.28 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
        >>> ring = 32 + 22 * torch.stack([angle.cos(), angle.sin()], 1)
        >>> round(local_dimension(ring, image_size=64), 1)
        1.0
    """
    if len(points) < 3:
        return 0.0
    points = _jitter_and_shuffle(points, torch.Generator().manual_seed(seed))[:_REFERENCE_POINTS]
    nearest = exact_distances(points, points).kthvalue(min(_MIN_NEIGHBOURS + 1, len(points)), dim=1).values
    balanced, trace, determinant = _moments(points, points, nearest.clamp(min=NEIGHBOURHOOD * image_size))
    larger = (trace + (trace.square() - 4 * determinant).clamp(min=0).sqrt()) / 2
    spread = torch.where(larger < RESOLUTION**2, 0.0, trace.square() / (trace.square() - 2 * determinant))
    return float((spread[balanced] if balanced.any() else spread).mean())


def _jitter_and_shuffle(points: Tensor, generator: torch.Generator) -> Tensor:
    """Move coordinates by up to half a pixel, and shuffle the points, so that the first ones are a random sample."""
    points = points.double() + torch.rand(points.shape, generator=generator, dtype=torch.float64) - 0.5
    return points[torch.randperm(len(points), generator=generator)]


def _subsets(number: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw subsets that contain all points about equally often: indices ``(subsets, size)``."""
    each = number // size
    orders = -(-_QUERIES // (each * size))
    shuffled = torch.rand(orders, number, generator=generator).argsort(1)
    return shuffled[:, : each * size].reshape(-1, size)


def _moments(places: Tensor, points: Tensor, radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute moments of the points ``(n, 2)`` within a radius ``(q,)`` around each place ``(q, 2)``.

    Returns:
        Whether there are points on all sides, and the trace and the determinant of their covariance: ``(q,)`` each.
    """
    # 1, x, y, x², y², xy of every point: their sums are a matrix product.
    powers = torch.cat([torch.ones_like(points[:, :1]), points, points.square(), points.prod(1, keepdim=True)], 1)
    sums = torch.cat(
        [
            (exact_distances(chunk, points) <= reach[:, None]).double() @ powers
            for chunk, reach in zip(places.split(_CHUNK), radii.split(_CHUNK), strict=True)
        ]
    )
    sums = sums[:, 1:] / sums[:, :1].clamp(min=1)
    x, y = places.unbind(1)
    mean = sums[:, :2] - places
    # About the place: E[(u - x)(v - y)] = E[uv] - x E[v] - y E[u] + xy.
    squares = sums[:, 2:4] - 2 * places * sums[:, :2] + places.square()
    cross = sums[:, 4] - x * sums[:, 1] - y * sums[:, 0] + x * y
    variance = squares - mean.square()
    covariance = cross - mean.prod(1)
    balanced = mean.square().sum(1) <= (_MAX_OFFSET * radii).square()
    return balanced, variance.sum(1), variance.prod(1) - covariance.square()

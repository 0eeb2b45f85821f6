"""Dimension of a cloud of points in the plane: 2 where they fill an area, 1 on a curve, 0 at a point.

Both estimates look at a scale of several pixels, where neither the whole numbers of real centres nor the noise of a
curve that is nearly one matter. Both leave out points near the cloud's edge, where neighbours are on one side only and
an area looks less than two-dimensional, if there are others: those whose neighbourhood's centre of mass lies off.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOGETHER = 8
"""Points looked at together by `intrinsic_dimension`: few, so that they lie several pixels apart. Spread over the
44 x 44 pixels of the data at 64 x 64, the first and the second neighbour are about 8 and 12 pixels away; on a ring with
0.35 of the image as its radius, 9 and 18. At 32 x 32 it is half of that."""

RESOLUTION = 1.0
"""Pixels below which things are at the same place."""

REACH = 0.12
"""Radius of `local_dimension`'s neighbourhoods, relative to the image's width: 7.7 pixels of 64."""

_QUERIES = 8000  # points whose neighbours are looked at, each several times if there are fewer
_OTHERS = 1000  # points that show where the cloud's edge is
_WIDER = 1.25  # radius of that look, relative to the distance of the second neighbour
_BALANCE = 0.15  # the centre of mass lies at most so far off, relative to that radius; of half a disc it is 0.42
_LEAST = 12  # points in a neighbourhood of `local_dimension`
_ROWS = 1000  # of a matrix of distances at a time


def intrinsic_dimension(points: Tensor, together: int = TOGETHER, seed: int = 0) -> float:
    """Two-nearest-neighbour estimate (Facco et al., 2017), of decimated points.

    If points are spread evenly in d dimensions, the ratio of the distances of a point's second and first neighbour has
    a logarithm of mean 1/d, at whatever density. So subsets of ``together`` points are drawn, of all points alike, and
    the ratios taken within each: at the scale of the distance between that few points. Before that, each coordinate is
    moved by up to half a pixel at random, so that whole numbers do not tie. A point whose second neighbour is within
    `RESOLUTION` shares its place with others and counts as of dimension 0.

    Measured with 250 to 5,000 points: the data's centres 1.9 to 2.1; a ring or a line, rounded to pixels or not, or
    with noise of half a pixel, 1.0 to 1.2 at 64 x 64 and to 1.3 at 32 x 32; a point 0; half a ring and half the data
    1.7.

    Args:
        points: ``(n, 2)``, in pixels.
        together: Points in a subset. For a cloud twice as wide four times as many keep the scale.
        seed: Fixes what is drawn.

    Returns:
        The dimension; 0 for fewer than three points.
    """
    together = min(together, len(points))
    if together < 3:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    # In random order, so that the first are any.
    points = _blurred(points, generator)[torch.randperm(len(points), generator=generator)]
    places, near, far = _two_neighbours(points, _subsets(len(points), together, generator))
    apart = far > RESOLUTION
    if not apart.any():
        return 0.0
    places, near, far = places[apart], near[apart], far[apart]
    inside = _moments(places, points[:_OTHERS], _WIDER * far).balanced
    ratios = (far / near)[inside] if inside.any() else far / near
    # One ratio that is 1 up to rounding, of very few points, must not make it infinite.
    return float(apart.double().mean() / ratios.log().mean().clamp(min=0.1))


def local_dimension(points: Tensor, image_size: int, seed: int = 0) -> float:
    """Local principal components: mean, over points, of how many directions their neighbours spread in.

    A neighbourhood is what lies within `REACH` of the image's width, or the nearest 12 points if that is more. With the
    variances a and b along its two axes, it spreads in ``(a + b)**2 / (a**2 + b**2)`` directions (the participation
    ratio): 1 if b is 0, 2 if they are equal; and in none if the larger is below `RESOLUTION` squared. As for
    `intrinsic_dimension`, each coordinate is moved by up to half a pixel before.

    Args:
        points: ``(n, 2)``, in pixels.
        image_size: Width of the image, in pixels.
        seed: Fixes what is drawn.

    Returns:
        The dimension, in [0, 2]; 0 for fewer than three points.
    """
    if len(points) < 3:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    points = _blurred(points, generator)[torch.randperm(len(points), generator=generator)][:_OTHERS]
    nearest = _distances(points, points).kthvalue(min(_LEAST + 1, len(points)), dim=1).values
    found = _moments(points, points, nearest.clamp(min=REACH * image_size))
    trace, determinant = found.trace, found.determinant
    larger = (trace + (trace.square() - 4 * determinant).clamp(min=0).sqrt()) / 2
    spread = torch.where(larger < RESOLUTION**2, 0.0, trace.square() / (trace.square() - 2 * determinant))
    return float((spread[found.balanced] if found.balanced.any() else spread).mean())


def _blurred(points: Tensor, generator: torch.Generator) -> Tensor:
    return points.double() + torch.rand(points.shape, generator=generator, dtype=torch.float64) - 0.5


def _distances(points: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _subsets(number: int, size: int, generator: torch.Generator) -> Tensor:
    """Subsets of ``size`` of so many points, all points about equally often: indices ``(subsets, size)``."""
    each = number // size
    orders = -(-_QUERIES // (each * size))
    shuffled = torch.rand(orders, number, generator=generator).argsort(1)
    return shuffled[:, : each * size].reshape(-1, size)


def _two_neighbours(points: Tensor, subsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All points of the subsets ``(q, 2)``, and how far their first and second neighbour are, ``(q,)`` each."""
    chosen = points[subsets]
    _, near, far = _distances(chosen, chosen).topk(3, largest=False).values.flatten(0, 1).unbind(1)
    return chosen.flatten(0, 1), near, far


class _Moments:
    """Of what lies around each of some points: whether it is on all sides, and its covariance's invariants."""

    def __init__(self, mean: Tensor, squares: Tensor, radii: Tensor) -> None:
        variance = squares[:, :2] - mean.square()
        covariance = squares[:, 2] - mean.prod(1)
        self.balanced = mean.square().sum(1) <= (_BALANCE * radii).square()
        self.trace = variance.sum(1)
        self.determinant = variance.prod(1) - covariance.square()


def _moments(places: Tensor, points: Tensor, radii: Tensor) -> _Moments:
    """Of the points ``(n, 2)`` around each place ``(q, 2)``, as far as its radius ``(q,)``."""
    # 1, x, y, x², y², xy of every point: sums of them are a matrix product.
    powers = torch.cat([torch.ones_like(points[:, :1]), points, points.square(), points.prod(1, keepdim=True)], 1)
    sums = torch.cat(
        [
            (_distances(part, points) <= reach[:, None]).double() @ powers
            for part, reach in zip(places.split(_ROWS), radii.split(_ROWS), strict=True)
        ]
    )
    sums = sums[:, 1:] / sums[:, :1].clamp(min=1)
    x, y = places.unbind(1)
    mean = sums[:, :2] - places
    # Around the place: E[(u - x)(v - y)] = E[uv] - x E[v] - y E[u] + xy.
    squares = sums[:, 2:4] - 2 * places * sums[:, :2] + places.square()
    cross = sums[:, 4] - x * sums[:, 1] - y * sums[:, 0] + x * y
    return _Moments(mean, torch.cat([squares, cross[:, None]], 1), radii)

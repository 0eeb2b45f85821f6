"""Measure walks through a generator's latent space: do latents move the objects without changing their shapes?

Liu et al. (2018), section 5, observed that directions in the latent space of a GAN with CoordConv are geometric
transformations such as translation, and that those of a GAN without it are not. Here the centres of both objects are
followed along straight walks. The metrics are the distance, straightness and evenness of their paths, and how often
the shapes stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.argument_checks import check_at_least
from generative.two_shape_decoder import decode

STEPS = 17  # images along a walk
WALKS = 64  # smallest number of walks that a task measures
MAX_STEP = 0.75  # a centre that moves by more than this times the radius from one image to the next has jumped
_BATCH = 64


class WalkMeasurements(NamedTuple):
    """The paths of both objects along ``n`` walks of ``s`` images. A path connects each valid image to the next one.

    Translation consists of steps of at most `MAX_STEP` times the radius between neighbouring valid images with the same
    shapes. An image is valid if it shows one red and one blue object.
    """

    axes: Tensor  # int64 (n,): the latent that the walk changes
    distance: Tensor  # float32 (n, 2): length of the path of each object's centre, in pixels
    displacement: Tensor  # float32 (n, 2): distance from the path's first to its last point, in pixels
    longest: Tensor  # float32 (n, 2): longest step of the path, in pixels
    translation: Tensor  # float32 (n, 2): the part of the distance that is translation, in pixels
    neighbours: Tensor  # int64 (n,): number of pairs of neighbouring images that are both valid, at most s - 1
    same_shapes: Tensor  # int64 (n,): number of these pairs in which both shapes stay the same
    valid: Tensor  # bool (n, s)
    centers: Tensor  # float32 (n, s, 2, 2): x and y of the red and the blue centre, in pixels, where valid
    shapes: Tensor  # int64 (n, s, 2): the shapes of both objects as indices into SHAPES, where valid


def walk_latents(latents: Tensor, axes: Tensor, steps: int = STEPS, reach: float = 1.0) -> Tensor:
    """Compute evenly spaced points on lines in latent space along each of which one latent changes: ``(n, steps, z)``.

    Args:
        latents: ``(n, z)``: a point on each line.
        axes: int64 ``(n,)``: the latent that changes on each line.
        steps: Number of points on each line, at least 2.
        reach: That latent goes from ``-reach`` to ``reach``; its value in ``latents`` is ignored.

    Example:
        >>> walk_latents(torch.tensor([[0.5, 0.25]]), torch.tensor([0]), steps=3)
        tensor([[[-1.0000,  0.2500],
                 [ 0.0000,  0.2500],
                 [ 1.0000,  0.2500]]])
    """
    check_at_least(2, steps=steps)
    points = latents[:, None].repeat(1, steps, 1)
    along = torch.linspace(-reach, reach, steps, dtype=latents.dtype, device=latents.device)
    points[torch.arange(len(axes)), :, axes] = along
    return points


def in_batches(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Iterator[Tensor]:
    """Apply a function, such as a generator, to a few rows at a time, and yield its outputs in order."""
    return map(function, inputs.split(_BATCH))


def measure_walks(
    sample: Callable[[Tensor], Tensor],
    latents: Tensor,
    axes: Tensor,
    radius: int,
    *,
    steps: int = STEPS,
    reach: float = 1.0,
) -> WalkMeasurements:
    """Follow the two objects along walks of `walk_latents`, and measure their paths; the results are on the CPU.

    Args:
        sample: Function from latents ``(B, z)`` to images ``(B, 3, H, W)`` in [-1, 1].
        latents: ``(n, z)``: a point on each walk.
        axes: int64 ``(n,)``: the latent that each walk changes.
        radius: Radius of the objects, in pixels.
        steps: Number of images along a walk.
        reach: A walk goes from ``-reach`` to ``reach``.
    """
    points = walk_latents(latents, axes, steps, reach)
    decoded = [decode(images, radius) for images in in_batches(sample, points.flatten(0, 1))]
    valid = torch.cat([batch.valid for batch in decoded]).cpu().view(-1, steps)
    centers = torch.cat([batch.centers for batch in decoded]).float().cpu().view(-1, steps, 2, 2)
    shapes = torch.cat([batch.shapes for batch in decoded]).cpu().view(-1, steps, 2)
    path = _fill_gaps(centers, valid)
    moves = path.diff(dim=1).norm(dim=-1)
    neighbours = valid[:, 1:] & valid[:, :-1]
    same = neighbours & (shapes[:, 1:] == shapes[:, :-1]).all(-1)
    moved = same[..., None] & (moves <= MAX_STEP * radius)
    return WalkMeasurements(
        axes=axes.cpu(),
        distance=moves.sum(1),
        displacement=(path[:, -1] - path[:, 0]).norm(dim=-1),
        longest=moves.amax(1),
        translation=(moves * moved).sum(1),
        neighbours=neighbours.sum(1),
        same_shapes=same.sum(1),
        valid=valid,
        centers=centers,
        shapes=shapes,
    )


def _fill_gaps(centers: Tensor, valid: Tensor) -> Tensor:
    """Replace the centres of invalid images by those of the last valid image before them, or the first one after."""
    number = torch.arange(valid.shape[1])
    last = torch.where(valid, number, -1).cummax(1).values
    last = torch.where(last < 0, valid.int().argmax(1, keepdim=True), last)
    filled = centers.take_along_dim(last[..., None, None], 1)
    return torch.where(valid.any(1)[:, None, None, None], filled, torch.zeros(()))


def walk_metrics(walks: WalkMeasurements, reach: float) -> dict[str, float]:
    """Summarise the measurements of walks from ``-reach`` to ``reach``.

    - ``walk_distance``: pixels that a centre moves per unit of a latent, the mean over walks and objects.
    - ``walk_translation``: the part of this distance that is translation (`WalkMeasurements`).
    - ``walk_straightness``: displacement divided by distance, both summed over all walks, so that long paths count
      most; 1 is straight, 0 ends where it started.
    - ``walk_jump``: longest step divided by distance, both summed likewise; ``1 / (steps - 1)`` is even, 1 is a single
      jump.
    - ``walk_same_shapes``: fraction of pairs of neighbouring valid images in which both shapes stay the same.
    - ``walk_valid``: fraction of images that show one red and one blue object.

    If nothing moves or nothing is valid, the metrics have their worst values: 0, and 1 for ``walk_jump``.
    """
    length, distance, pairs = 2 * reach, float(walks.distance.sum()), int(walks.neighbours.sum())
    return {
        "walk_distance": float(walks.distance.mean()) / length,
        "walk_translation": float(walks.translation.mean()) / length,
        "walk_straightness": float(walks.displacement.sum()) / distance if distance else 0.0,
        "walk_jump": float(walks.longest.sum()) / distance if distance else 1.0,
        "walk_same_shapes": int(walks.same_shapes.sum()) / pairs if pairs else 0.0,
        "walk_valid": float(walks.valid.float().mean()),
    }

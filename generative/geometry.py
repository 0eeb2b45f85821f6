"""Walks along latent directions, measured: does a step in the latents move the objects, or turn them into others?

Liu et al. (2018), section 5, saw that directions in the latent space of a GAN with CoordConv are geometric
transformations, such as translation, and that those of one without are not. Here the centres of the two objects are
followed along straight walks: how far they go, how directly, how evenly, and whether the shapes stay what they are.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.decode import decode
from generative.shapes import COLOURS, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

REACH = {"gan": 1.0, "vae": 2.0}
"""How far a walk goes to either side of 0: to the ends of a GAN's uniform latents, over 95 % of a VAE's normal ones."""

STEPS, WALKS = 17, 64
"""Images along a walk, and how many walks are measured at least."""

JUMP = 0.75
"""A centre that moves by more than this share of the radius from one image to the next has jumped, not moved."""

_BATCH = 64
_DPI = 110
_STEADY_COLOUR, _OTHER_COLOUR = "#0072b2", "#c3c9d1"
_SAME_COLOUR, _VALID_COLOUR = "#009e73", "#d55e00"
_PATH_MAPS = ("Reds", "Blues")  # in the order of the objects
_PATHS = 6


class WalkFigures(NamedTuple):
    """What was seen along ``n`` walks of ``s`` images. A walk's path goes from one valid image to the next valid one.

    Attributes:
        axes: int64 ``(n,)``: which latent the walk changes; -1 for a walk that changes several.
        distance: float32 ``(n, 2)``: length of the path of each object's centre, in pixels.
        displacement: float32 ``(n, 2)``: from its first place straight to its last one, in pixels.
        longest: float32 ``(n, 2)``: the longest step on its path, in pixels.
        translation: float32 ``(n, 2)``: the part of ``distance`` that is translation: steps between two neighbouring
            valid images that show the same shapes, none of them longer than `JUMP` times the radius; in pixels.
        neighbours: int64 ``(n,)``: pairs of neighbouring images that are both valid, at most ``s - 1``.
        same_shapes: int64 ``(n,)``: such pairs in which both shapes stay.
        valid: bool ``(n, s)``: whether the image shows one red and one blue object.
        centers: float32 ``(n, s, 2, 2)``: x and y of the red and the blue centre, in pixels; to be used where valid.
        shapes: int64 ``(n, s, 2)``: the numbers of their shapes; to be used where valid.
    """

    axes: Tensor
    distance: Tensor
    displacement: Tensor
    longest: Tensor
    translation: Tensor
    neighbours: Tensor
    same_shapes: Tensor
    valid: Tensor
    centers: Tensor
    shapes: Tensor


def walk(latents: Tensor, directions: Tensor, steps: int = STEPS, reach: float = 1.0) -> Tensor:
    """Points on straight lines in the space of latents.

    Args:
        latents: ``(n, z)``: a point that each line goes through.
        directions: ``(n, z)``: along which it goes; of any length but 0.
        steps: Points on each line, at least 2.
        reach: The coordinate along the direction goes from ``-reach`` to ``reach``, whatever it is in ``latents``.

    Returns:
        ``(n, steps, z)``, evenly spaced. Along an axis, one latent changes and all others stay as they are.

    Raises:
        ValueError: The shapes differ, there are too few steps, or a direction has no length.
    """
    if latents.ndim != 2 or latents.shape != directions.shape:
        shapes = f"{tuple(latents.shape)}, directions of shape {tuple(directions.shape)}"
        raise ValueError(f"latents of shape {shapes}: must both be (n, z)")
    if steps < 2:
        raise ValueError(f"steps={steps}: must be an integer of at least 2")
    length = directions.norm(dim=1, keepdim=True)
    if not (length > 0).all():
        raise ValueError(f"directions: row {int((length == 0).int().argmax())} is 0 everywhere, it must have a length")
    directions = directions / length
    beside = latents - (latents * directions).sum(1, keepdim=True) * directions
    along = torch.linspace(-reach, reach, steps, device=latents.device, dtype=latents.dtype)
    return beside[:, None] + along[:, None] * directions[:, None]


def in_batches(sample: Callable[[Tensor], Tensor], latents: Tensor) -> Iterator[Tensor]:
    """Generates images a few at a time.

    Args:
        sample: Makes images ``(B, 3, H, W)`` of latents ``(B, z)``.
        latents: ``(N, z)``.

    Yields:
        Batches of images, in order.
    """
    for batch in latents.split(_BATCH):
        yield sample(batch)


def measure_walks(
    sample: Callable[[Tensor], Tensor],
    latents: Tensor,
    directions: Tensor,
    radius: int,
    *,
    steps: int = STEPS,
    reach: float = 1.0,
) -> WalkFigures:
    """Follows the two objects along walks.

    Args:
        sample: Makes images ``(B, 3, H, W)`` in [-1, 1] of latents ``(B, z)``.
        latents: ``(n, z)``: a point that each walk goes through.
        directions: ``(n, z)``: along which it goes.
        radius: Of the objects, in pixels.
        steps: Images along a walk.
        reach: A walk goes from ``-reach`` to ``reach``, as in `walk`.

    Returns:
        Figures of all walks, on the CPU.

    Raises:
        ValueError: As in `walk`.
    """
    points = walk(latents, directions, steps, reach)
    decoded = [decode(images, radius) for images in in_batches(sample, points.flatten(0, 1))]
    valid = torch.cat([part.valid for part in decoded]).cpu().view(-1, steps)
    centers = torch.cat([part.centers for part in decoded]).float().cpu().view(-1, steps, 2, 2)
    shapes = torch.cat([part.shapes for part in decoded]).cpu().view(-1, steps, 2)
    path = _over_gaps(centers, valid)
    moves = path.diff(dim=1).norm(dim=-1)
    neighbours = valid[:, 1:] & valid[:, :-1]
    same = neighbours & (shapes[:, 1:] == shapes[:, :-1]).all(-1)
    moved = same[..., None] & (moves <= JUMP * radius)
    axes = torch.where((directions != 0).sum(1) == 1, directions.abs().argmax(1), -1)
    return WalkFigures(
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


def _over_gaps(centers: Tensor, valid: Tensor) -> Tensor:
    """Centres ``(n, s, 2, 2)`` where images that are not valid have those of the valid one before, or else after."""
    number = torch.arange(valid.shape[1])
    last = torch.where(valid, number, -1).cummax(1).values
    last = torch.where(last < 0, valid.int().argmax(1, keepdim=True), last)
    filled = centers.take_along_dim(last[..., None, None], 1)
    return torch.where(valid.any(1)[:, None, None, None], filled, torch.zeros(()))


def walk_along_axes(
    sample: Callable[[Tensor], Tensor],
    draw_latents: Callable[[int, int], Tensor],
    radius: int,
    *,
    walks: int = WALKS,
    steps: int = STEPS,
    seed: int = 0,
    reach: float = 1.0,
) -> WalkFigures:
    """Measures walks along every single latent, each through a point of its own: every latent equally often.

    Args:
        sample: Makes images ``(B, 3, H, W)`` in [-1, 1] of latents ``(B, z)``.
        draw_latents: Makes latents ``(number, z)`` of a number and a seed.
        radius: Of the objects, in pixels.
        walks: How many at least; the next multiple of the number of latents is made.
        steps: Images along a walk.
        seed: Fixes the points.
        reach: A walk goes from ``-reach`` to ``reach``: that of the method in `REACH`.

    Returns:
        Figures of all walks, those along the first latent first.

    Raises:
        ValueError: There are too few walks or steps.
    """
    if walks < 1:
        raise ValueError(f"walks={walks}: must be an integer of at least 1")
    size = draw_latents(1, seed).shape[1]
    each = -(-walks // size)
    latents = draw_latents(size * each, seed)
    directions = torch.eye(size, dtype=latents.dtype, device=latents.device).repeat_interleave(each, 0)
    return measure_walks(sample, latents, directions, radius, steps=steps, reach=reach)


def summarise(figures: WalkFigures, reach: float) -> dict[str, float]:
    """The figures of all walks together.

    Args:
        figures: Of at least one walk.
        reach: How far the walks went to either side.

    Returns:
        - ``walk_distance``: pixels that a centre moves per unit of a latent: the mean over walks and objects.
        - ``walk_translation``: the part of it that is translation: between neighbouring valid images with the same
          shapes, without jumps.
        - ``walk_straightness``: way from the first to the last place over the way gone, both summed over all walks, so
          that long ones count most; 1 is straight, 0 goes back to where it started.
        - ``walk_jump``: the longest step of a walk over its whole way, both summed likewise; ``1 / (steps - 1)`` is
          even, 1 is a single leap.
        - ``walk_same_shapes``: share of neighbouring valid images in which both shapes stay the same.
        - ``walk_valid``: share of images that show one red and one blue object.

        Where nothing moves or nothing is valid, they have the worst values: 0, and 1 for ``walk_jump``.
    """
    length, way, pairs = 2 * reach, float(figures.distance.sum()), int(figures.neighbours.sum())
    return {
        "walk_distance": float(figures.distance.mean()) / length,
        "walk_translation": float(figures.translation.mean()) / length,
        "walk_straightness": float(figures.displacement.sum()) / way if way else 0.0,
        "walk_jump": float(figures.longest.sum()) / way if way else 1.0,
        "walk_same_shapes": int(figures.same_shapes.sum()) / pairs if pairs else 0.0,
        "walk_valid": float(figures.valid.float().mean()),
    }


def draw_geometry(figures: WalkFigures, image_size: int, radius: int, title: str) -> Figure:
    """Draws how far each latent moves the centres and whether shapes stay, and the paths of a few walks.

    Args:
        figures: What `walk_along_axes` returns.
        image_size: Height and width of the images, in pixels.
        radius: Of the objects, in pixels.
        title: Over the figure.

    Returns:
        A figure: on the left the latents by how far they move the centres, on the right the longest walk along each of
        the latents that move them farthest.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.8), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=14)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2), wspace=0.02, squeeze=False)[0]
    order = _draw_axes(left, figures)
    panels = list(right.subplots(2, _PATHS // 2, sharex=True, sharey=True, squeeze=False).flat)
    right.suptitle("paths of the two centres, from light to dark; a dot for each valid image", fontsize=12)
    edge = image_size - 0.5
    for panel in panels:
        panel.set(xlim=(-0.5, edge), ylim=(edge, -0.5), aspect="equal", facecolor="#f6f7f9")
    for panel, latent in zip(panels, order, strict=False):
        walks = (figures.axes == latent).nonzero()[:, 0]
        _draw_walk(panel, figures, int(walks[figures.distance[walks].sum(1).argmax()]), radius)
    return figure


def _draw_axes(figure: SubFigure, figures: WalkFigures) -> list[int]:
    """Draws a bar for each latent, and returns the latents in the order of the bars, farthest first."""
    axes = figures.axes.unique()
    of_axis = (figures.axes == axes[:, None]).float()
    number = of_axis.sum(1)
    distance, translation = (of_axis @ part.mean(1) / number for part in (figures.distance, figures.translation))
    same = of_axis @ figures.same_shapes.float() / (of_axis @ figures.neighbours.float())  # not a number if none
    valid = of_axis @ figures.valid.float().mean(1) / number
    order = distance.argsort(descending=True, stable=True)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    places = range(len(order))
    far, steady = distance[order].numpy(), translation[order].numpy()
    upper.bar(places, far, color=_OTHER_COLOUR, label="jumps, shapes change, or not valid")
    upper.bar(places, steady, color=_STEADY_COLOUR, label="translation: steady, shapes stay")
    upper.set(ylim=(0, max(1.0, 1.25 * far[0])), ylabel="pixels")
    upper.set_title("way of a centre over a whole walk, mean of both objects", fontsize=12)
    lower.plot(places, same[order].numpy(), "o", color=_SAME_COLOUR, label="both shapes stay from image to image")
    lower.plot(places, valid[order].numpy(), "x", color=_VALID_COLOUR, label="images valid")
    lower.set(ylim=(-0.05, 1.05), ylabel="share", xlabel="latent, from the one that moves the centres farthest")
    names = [str(axis) for axis in axes[order].tolist()]
    every = -(-len(names) // 25)  # so that they do not run into one another
    lower.set_xticks(list(places)[::every], names[::every], fontsize=9)
    for panel in (upper, lower):
        panel.grid(axis="y", color="#e3e6ea")
        panel.set_axisbelow(True)
    upper.legend(frameon=False, fontsize=9)
    lower.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.97))
    return [int(axis) for axis in axes[order]]


def _draw_walk(panel: Axes, figures: WalkFigures, number: int, radius: int) -> None:
    """Draws the paths of both centres; a jump is a long line without dots. The first and last shapes are outlined."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle, Rectangle

    valid = figures.valid[number]
    for item, colours in enumerate(_PATH_MAPS):
        path, shapes = figures.centers[number, valid, item].tolist(), figures.shapes[number, valid, item].tolist()
        shade = colormaps[colours](torch.linspace(0.35, 1, max(len(path), 1)).numpy())
        lines = LineCollection(list(itertools.pairwise(path)), colors=shade[1:], linewidths=1.2)
        panel.add_collection(lines, autolim=False)
        for (x, y), colour in zip(path, shade, strict=False):
            panel.plot(x, y, ".", color=colour, markersize=7)
        for end in {0, len(path) - 1} if path else ():
            (x, y), line = path[end], {"fill": False, "edgecolor": shade[end], "linewidth": 1.0}
            square = Rectangle((x - radius, y - radius), 2 * radius, 2 * radius, **line)
            panel.add_patch(square if SHAPES[shapes[end]] == "square" else Circle((x, y), radius, **line))
    way = ", ".join(f"{colour} {far:.0f}" for colour, far in zip(COLOURS, figures.distance[number], strict=True))
    panel.set_title(f"latent {int(figures.axes[number])}: {way} px", fontsize=9)

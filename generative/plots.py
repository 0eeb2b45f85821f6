"""Plots of where the two objects are: average image, centres, and walks through the latent space."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.plotting import new_figure
from generative.latent_walks import WalkMeasurements
from generative.pixel_range import to_uint8
from generative.two_shape_decoder import decode
from generative.two_shapes import COLOURS, SHAPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAX_AVERAGED = 500  # largest number of images in the average image

_CLOUD_COLOURS = {"red": "#d62728", "blue": "#1f5fd6", "red minus blue": "#7a3e9d"}
_TRANSLATION_COLOUR, _OTHER_COLOUR = "#0072b2", "#c3c9d1"
_SAME_SHAPES_COLOUR, _VALID_COLOUR = "#009e73", "#d55e00"
_PATH_COLOURMAPS = ("Reds", "Blues")  # in the order of the objects
_PATHS = 6


class ImageStatistics(NamedTuple):
    """Objects in two-shape images, and the average of the first `MAX_AVERAGED` images; everything on the CPU."""

    centers: Tensor  # float32 (N, 2, 2): x and y of the red and the blue centre, in pixels, where valid
    valid: Tensor  # bool (N,): whether the image shows one red and one blue object
    average: Tensor  # float32 (3, H, W) in [-1, 1]
    averaged: int  # number of images in the average


def image_statistics(batches: Iterable[Tensor], radius: int) -> ImageStatistics:
    """Decode and average images ``(B, 3, H, W)`` in [-1, 1] with objects of a radius in pixels."""
    centers, valid, total, averaged = [], [], torch.zeros(()), 0
    for images in batches:
        decoded = decode(images, radius)
        centers.append(decoded.centers.float().cpu())
        valid.append(decoded.valid.cpu())
        first = images[: MAX_AVERAGED - averaged].float().nan_to_num(0.0).clamp(-1, 1)
        total = total + first.sum(0).cpu()
        averaged += len(first)
    return ImageStatistics(torch.cat(centers), torch.cat(valid), total / averaged, averaged)


def plot_average(real: ImageStatistics, generated: ImageStatistics, title: str) -> Figure:
    """Plot the average of real images beside that of generated images."""
    figure = new_figure(title, 9, 5)
    pairs = {"real": real, "generated": generated}
    for axes, (name, statistics) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
        axes.imshow(to_uint8(statistics.average).permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(f"{statistics.averaged:,} {name} images")
        axes.set(xlabel="x in pixels")
    figure.axes[0].set_ylabel("y in pixels")
    return figure


def plot_centers(real: ImageStatistics, generated: ImageStatistics, radius: int, title: str) -> Figure:
    """Plot the red and the blue centres and their differences, real images above generated ones."""
    pairs = {"real": real, "generated": generated}
    invalid = ", ".join(f"{(~one.valid).sum():,} of {len(one.valid):,} {name}" for name, one in pairs.items())
    figure = new_figure(f"{title}\n(invalid and left out: {invalid})", 11.5, 8)
    rows, size = figure.subplots(2, 3), real.average.shape[-1]
    for (name, statistics), row in zip(pairs.items(), rows, strict=True):
        red, blue = statistics.centers[statistics.valid].unbind(1)
        clouds = (red, blue, red - blue)
        for axes, cloud, (label, colour) in zip(row, clouds, _CLOUD_COLOURS.items(), strict=True):
            axes.scatter(*cloud.T.numpy(), s=9, color=colour, alpha=0.6, linewidths=0)
            axes.set_title(f"{name}: {label}")
            _outline_range(axes, size, radius, difference=label not in COLOURS)
        row[0].set_ylabel("y in pixels")
    for axes in rows[1]:
        axes.set_xlabel("x in pixels")
    return figure


def _outline_range(axes: Axes, size: int, radius: int, *, difference: bool) -> None:
    """Show the whole range with y downwards, and outline where centres or differences of the data lie."""
    from matplotlib.patches import Circle, Rectangle

    places = size - 2 * radius - 1
    line: dict[str, Any] = {"fill": False, "edgecolor": "#9aa3ad", "linewidth": 0.8, "linestyle": "--", "zorder": 0}
    if difference:
        axes.set(xlim=(-size + 0.5, size - 0.5), ylim=(size - 0.5, -size + 0.5), aspect="equal")
        axes.add_patch(Rectangle((-places, -places), 2 * places, 2 * places, **line))
        axes.add_patch(Circle((0, 0), 2 * radius, **line))
    else:
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.add_patch(Rectangle((radius, radius), places, places, **line))


def plot_walks(walks: WalkMeasurements, image_size: int, radius: int, title: str) -> Figure:
    """Plot how far each latent moves the centres, whether shapes stay the same, and the paths of a few walks.

    The left panel shows the latents, sorted by how far they move the centres. The right panels show the longest walk of
    each of the first latents. Sizes are in pixels.
    """
    figure = new_figure(title, 13, 5.8)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2), wspace=0.02, squeeze=False)[0]
    order = _plot_latents(left, walks)
    panels = list(right.subplots(2, _PATHS // 2, sharex=True, sharey=True, squeeze=False).flat)
    right.suptitle("paths of the two centres, from light to dark; a dot for each valid image", fontsize=12)
    edge = image_size - 0.5
    for panel in panels:
        panel.set(xlim=(-0.5, edge), ylim=(edge, -0.5), aspect="equal", facecolor="#f6f7f9")
    for panel, latent in zip(panels, order, strict=False):
        candidates = (walks.axes == latent).nonzero()[:, 0]
        _plot_path(panel, walks, int(candidates[walks.distance[candidates].sum(1).argmax()]), radius)
    return figure


def _plot_latents(figure: SubFigure, walks: WalkMeasurements) -> list[int]:
    """Plot a bar for each latent, and return the latents in the order of the bars, farthest first."""
    axes = walks.axes.unique()
    member = (walks.axes == axes[:, None]).float()
    number = member.sum(1)
    distance, translation = (member @ values.mean(1) / number for values in (walks.distance, walks.translation))
    same = member @ walks.same_shapes.float() / (member @ walks.neighbours.float())  # NaN without neighbours
    valid = member @ walks.valid.float().mean(1) / number
    order = distance.argsort(descending=True, stable=True)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    places = range(len(order))
    heights, translated = distance[order].numpy(), translation[order].numpy()
    upper.bar(places, heights, color=_OTHER_COLOUR, label="jumps, shape changes, or invalid images")
    upper.bar(places, translated, color=_TRANSLATION_COLOUR, label="translation: no jumps, same shapes")
    upper.set(ylim=(0, max(1.0, 1.25 * heights[0])), ylabel="pixels")
    upper.set_title("path length of a centre over a whole walk, mean of both objects", fontsize=12)
    lower.plot(places, same[order].numpy(), "o", color=_SAME_SHAPES_COLOUR, label="both shapes stay the same")
    lower.plot(places, valid[order].numpy(), "x", color=_VALID_COLOUR, label="valid images")
    lower.set(ylim=(-0.05, 1.05), ylabel="fraction", xlabel="latent, sorted by path length")
    names = [str(axis) for axis in axes[order].tolist()]
    every = -(-len(names) // 25)  # labels must not overlap
    lower.set_xticks(list(places)[::every], names[::every], fontsize=9)
    for panel in (upper, lower):
        panel.grid(axis="y", color="#e3e6ea")
        panel.set_axisbelow(True)
    upper.legend(frameon=False, fontsize=9)
    lower.legend(frameon=False, fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.97))
    return [int(axis) for axis in axes[order]]


def _plot_path(panel: Axes, walks: WalkMeasurements, index: int, radius: int) -> None:
    """Plot the paths of both centres with the first and last shapes; a jump is a long line without dots."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle, Rectangle

    valid = walks.valid[index]
    for item, colourmap in enumerate(_PATH_COLOURMAPS):
        path, shapes = walks.centers[index, valid, item].tolist(), walks.shapes[index, valid, item].tolist()
        colours = colormaps[colourmap](torch.linspace(0.35, 1, max(len(path), 1)).numpy())
        lines = LineCollection(list(itertools.pairwise(path)), colors=colours[1:], linewidths=1.2)
        panel.add_collection(lines, autolim=False)
        for (x, y), colour in zip(path, colours, strict=False):
            panel.plot(x, y, ".", color=colour, markersize=7)
        for end in {0, len(path) - 1} if path else ():
            (x, y), line = path[end], {"fill": False, "edgecolor": colours[end], "linewidth": 1.0}
            square = Rectangle((x - radius, y - radius), 2 * radius, 2 * radius, **line)
            panel.add_patch(square if SHAPES[shapes[end]] == "square" else Circle((x, y), radius, **line))
    distances = zip(COLOURS, walks.distance[index], strict=True)
    lengths = ", ".join(f"{colour} {distance:.0f}" for colour, distance in distances)
    panel.set_title(f"latent {int(walks.axes[index])}: {lengths} px", fontsize=9)

"""Pictures of where on the canvas a network succeeds, after the figures of Liu et al. (2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.metrics import pixel_iou
from coordconv_apps.coordinates.not_so_clevr import Centers, pixel_index
from coordconv_apps.coordinates.tasks import (
    CoordinateClassification,
    CoordinateRegression,
    CoordinateTask,
)
from coordconv_apps.training.pictures import Pictures, arm_in_words
from coordconv_apps.utils.plotting import as_picture, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightning.pytorch import LightningDataModule, LightningModule
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

RIGHT_COLOUR, WRONG_COLOUR = "#0072b2", "#e69f00"  # blue and orange: the colour-blind can tell them apart, too
GROUND_COLOUR = "#e8eaed"  # of pixels without a centre
FRAME_COLOUR = "#d55e00"  # vermilion stands out from the blues of probabilities

_BATCH = 64


def true_pixels(logits: Tensor, centers: Tensor) -> Tensor:
    """Return two values for each sample, float32 ``(B, 2)``.

    They are the probability of the true pixel, in [0, 1], and 1 if that pixel is the most probable one, else 0.

    Args:
        logits: ``(B, H, W)``.
        centers: int64 ``(B, 1, 2)``, x and y of the true pixel.
    """
    logits, pixels = logits.flatten(1).float(), pixel_index(centers[:, 0], logits.shape[-1])
    probability = logits.softmax(1).gather(1, pixels.unsqueeze(1)).squeeze(1)
    return torch.stack([probability, (logits.argmax(1) == pixels).float()], dim=1)


def per_sample(
    task: CoordinateTask, centers: Tensor, measure: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[np.float32]:
    """Compute values ``(n, ...)`` for all samples of a set, ``(n, objects, 2)``, batch by batch.

    Args:
        task: The task, in evaluation mode.
        centers: The set.
        measure: Computes values ``(B, ...)`` from the outputs and the centres of a batch.
    """
    batches = (batch.to(task.device) for batch in centers.split(_BATCH))
    return np.concatenate([measure(task(batch), batch).float().cpu().numpy() for batch in batches])


def on_canvas(centers: Tensor, values: NDArray[np.float32], canvas_size: int) -> NDArray[np.float32]:
    """Place values ``(n,)`` at their centres ``(n, 1, 2)`` on a canvas, first index y; NaN where there is no centre."""
    x, y = centers[:, 0].cpu().numpy().T
    canvas = np.full((canvas_size, canvas_size), np.nan, dtype=np.float32)
    canvas[y, x] = values
    return canvas


def window(center: tuple[int, int], canvas_size: int, side: int = 15) -> tuple[int, int, int]:
    """Return first x, first y and side of a square around a centre, shifted where it would leave the canvas."""
    side = min(side, canvas_size)
    x, y = (min(max(c - side // 2, 0), canvas_size - side) for c in center)
    return x, y, side


class Point(NamedTuple):
    """A sample to draw."""

    set_name: str  # train or test
    sample: int  # its index in the set
    text: str  # why it was chosen


def choose_points(train: NDArray[np.float32], test: NDArray[np.float32]) -> list[Point]:
    """Choose the points of the paper's figure: a clear hit, a narrow hit, and a miss.

    These are the training hit with the highest probability, and the test hit and the test miss with the lowest
    probability. If there is no hit, the miss with the highest probability takes its place; without a miss there is no
    third point. No point appears twice.

    Args:
        train: ``(n, 2)``, probabilities and hits of the training set, as `true_pixels` returns them.
        test: ``(m, 2)``, the same for the test set.
    """
    points = []
    for name, values, extreme, text in (
        ("train", train, np.argmax, "right, the surest"),
        ("test", test, np.argmin, "right, the least sure"),
    ):
        hits, misses = (np.flatnonzero((values[:, 1] > 0.5) == hit) for hit in (True, False))
        if len(hits):
            points.append(Point(name, int(hits[extreme(values[hits, 0])]), text))
        else:
            points.append(Point(name, int(misses[values[misses, 0].argmax()]), "all wrong, the best"))
    if len(misses):  # of the test set
        worst = int(misses[test[misses, 0].argmin()])
        if worst != points[-1].sample:
            points.append(Point("test", worst, "wrong, the worst"))
    return points


def spread_out(count: int, chosen: int = 8) -> list[int]:
    """Return at most ``chosen`` of ``count`` indices, evenly spaced from the first to the last."""
    return [round(index) for index in np.linspace(0, count - 1, min(chosen, count)).tolist()]


class CoordinatePictures(Pictures):
    """Draw the network's outputs at every place on the canvas, for the training and the test set."""

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw the pictures of a task.

        Classification: "centers", which centres are found, and "probabilities" around single points. Regression:
        "positions". Rendering: "squares" and, with one object, "iou", how well each square is drawn.

        Raises:
            TypeError: The task or the data belong to another application.
        """
        if not (isinstance(task, CoordinateTask) and isinstance(datamodule, NotSoClevrData)):
            raise TypeError(f"{type(self).__name__} cannot draw {type(task).__name__} with {type(datamodule).__name__}")
        return {name: as_picture(figure) for name, figure in _figures(task, datamodule.centers).items()}


def _figures(task: CoordinateTask, centers: Centers) -> dict[str, Figure]:
    def of_both_sets(measure: Callable[[Tensor, Tensor], Tensor]) -> list[NDArray[np.float32]]:
        return [per_sample(task, of_set, measure) for of_set in centers]

    if isinstance(task, CoordinateClassification):
        train, test = of_both_sets(true_pixels)
        return {
            "centers": _draw_centers(task, centers, (train[:, 1], test[:, 1])),
            "probabilities": _draw_points(task, centers, choose_points(train, test)),
        }
    if isinstance(task, CoordinateRegression):
        return {"positions": _draw_positions(task, centers, of_both_sets(lambda positions, _: positions))}
    figures = {"squares": _draw_squares(task, centers.test[spread_out(len(centers.test))])}
    if task.objects == 1:
        shares = of_both_sets(lambda logits, batch: pixel_iou(logits, task.targets(batch)))
        figures["iou"] = _draw_iou(task, centers, shares)
    return figures


def _new_figure(task: CoordinateTask, title: str, width: float, height: float) -> Figure:
    return new_figure(f"{arm_in_words(task.coords)}: {title}", width, height)


def _canvases(
    task: CoordinateTask, title: str, centers: Centers, values: Sequence[NDArray[np.float32]]
) -> tuple[Figure, list[tuple[Axes, str, Tensor, NDArray[np.float32]]]]:
    """Make a figure of two canvases, x to the right and y down; return axes, name, centres and values of each set."""
    figure = _new_figure(task, title, 10, 5.9)
    both = figure.subplots(1, 2, sharey=True)
    edge = task.canvas_size - 0.5
    for axes in both:
        axes.set(xlim=(-0.5, edge), ylim=(edge, -0.5), aspect="equal", xlabel="x in pixels")
    both[0].set_ylabel("y in pixels")
    return figure, list(zip(both, ("train", "test"), centers, values, strict=True))


def _draw_centers(task: CoordinateTask, centers: Centers, hits: Sequence[NDArray[np.float32]]) -> Figure:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    figure, canvases = _canvases(task, "which centres are found", centers, hits)
    colours = ListedColormap([WRONG_COLOUR, RIGHT_COLOUR]).with_extremes(bad=GROUND_COLOUR)
    for axes, name, of_set, values in canvases:
        axes.imshow(on_canvas(of_set, values, task.canvas_size), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: {values.sum():,.0f} of {len(values):,} right ({100 * values.mean():.1f} %)")
    patches = {"right": RIGHT_COLOUR, "wrong": WRONG_COLOUR, "no centre of this set": GROUND_COLOUR}
    handles = [Patch(facecolor=colour, edgecolor="#808080", label=text) for text, colour in patches.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_points(task: CoordinateTask, centers: Centers, points: list[Point]) -> Figure:
    figure = _new_figure(task, "pixel probabilities of single points", 4 * len(points), 7.6)
    rows = figure.subplots(2, len(points), squeeze=False)
    for point, around, whole in zip(points, *rows, strict=True):
        center = (centers.train if point.set_name == "train" else centers.test)[point.sample]
        logits = task(center.unsqueeze(0).to(task.device)).float()
        probabilities = logits.flatten().softmax(0).view(task.canvas_size, -1).cpu().numpy()
        x, y = center[0].tolist()
        part = window((x, y), task.canvas_size)
        _draw_probabilities(around, probabilities, part, (x, y, 1))
        _draw_probabilities(whole, probabilities, (0, 0, task.canvas_size), part)
        target = f"target ({x}, {y}), framed: {probabilities[y, x]:.2g}"
        around.set_title(f"{point.set_name}: {point.text}\n{target}", fontsize=12)
        best_y, best_x = np.unravel_index(probabilities.argmax(), probabilities.shape)
        most = f"most probable ({best_x}, {best_y}): {probabilities.max():.2g}"
        whole.set_title(f"the canvas, the part above framed\n{most}", fontsize=12)
    for axes in rows[:, 0]:
        axes.set_ylabel("y in pixels")
    for axes in rows[1]:
        axes.set_xlabel("x in pixels")
    return figure


def _draw_probabilities(
    axes: Axes, probabilities: NDArray[np.float32], part: tuple[int, int, int], frame: tuple[int, int, int]
) -> None:
    """Draw a part of the canvas on its own colour scale, with a frame; both are (first x, first y, side)."""
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    x, y, side = part
    shown = probabilities[y : y + side, x : x + side]
    extent = (x - 0.5, x + side - 0.5, y + side - 0.5, y - 0.5)
    highest = shown.max() if shown.max() > 0 else 1  # all zeros far from the probable pixels
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=highest, extent=extent, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    x, y, side = frame
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, edgecolor=FRAME_COLOUR, linewidth=2))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def _draw_positions(task: CoordinateTask, centers: Centers, found: Sequence[NDArray[np.float32]]) -> Figure:
    from matplotlib.collections import LineCollection

    figure, canvases = _canvases(task, "true and found positions", centers, found)
    for axes, name, of_set, positions in canvases:
        true = of_set[:, 0].cpu().numpy()
        ways = list(np.stack([true, positions], axis=1))
        axes.scatter(true[:, 0], true[:, 1], s=12, color="#b8bcc2", linewidths=0, zorder=1, label="true")
        # Faint, so that the dots stay visible among thousands of long lines.
        lines = LineCollection(ways, colors=WRONG_COLOUR, linewidths=0.8, alpha=0.25, zorder=2)
        lines.set_label("from true to found")
        axes.add_collection(lines, autolim=False)
        axes.scatter(positions[:, 0], positions[:, 1], s=5, color=RIGHT_COLOUR, linewidths=0, zorder=3, label="found")
        axes.set_title(f"{name}: mean distance {np.linalg.norm(positions - true, axis=1).mean():.3g} pixels")
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return figure


def _draw_squares(task: CoordinateTask, centers: Tensor) -> Figure:
    logits = task(centers.to(task.device)).float().cpu()
    images = task.targets(centers)
    figure = _new_figure(task, "squares of the test set", 1.6 * max(len(centers), 4), 4.1)
    rows = figure.subplots(2, len(centers), squeeze=False)
    shares = pixel_iou(logits, images)
    for truth, drawn, image, predicted, share in zip(*rows, images, logits.sigmoid(), shares, strict=True):
        for axes, pixels in ((truth, image), (drawn, predicted)):
            axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        drawn.set_title(f"IoU {share:.2f}")
    rows[0, 0].set_ylabel("truth", fontsize=12)
    rows[1, 0].set_ylabel("probability", fontsize=12)
    return figure


def _draw_iou(task: CoordinateTask, centers: Centers, shares: Sequence[NDArray[np.float32]]) -> Figure:
    from matplotlib import colormaps

    figure, canvases = _canvases(task, "intersection over union of the square at each centre", centers, shares)
    colours = colormaps["viridis"].with_extremes(bad=GROUND_COLOUR)
    for axes, name, of_set, values in canvases:
        canvas = on_canvas(of_set, values, task.canvas_size)
        image = axes.imshow(canvas, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: mean IoU {values.mean():.3f}")
    figure.colorbar(image, ax=[canvas[0] for canvas in canvases], location="bottom", shrink=0.5, aspect=40, label="IoU")
    return figure

"""Pictures of where on the canvas a network succeeds, after the figures of Liu et al. (2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.metrics import pixel_iou
from coordconv_apps.coordinates.not_so_clevr import Centers, pixel_index
from coordconv_apps.coordinates.tasks import (
    CoordinateClassification,
    CoordinateRegression,
    CoordinateRendering,
    CoordinateTask,
)
from coordconv_apps.training.pictures import Pictures
from coordconv_apps.utils.plotting import as_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightning.pytorch import LightningDataModule, LightningModule
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

SetName = Literal["train", "test"]

RIGHT_COLOUR, WRONG_COLOUR, GROUND_COLOUR = "#0072b2", "#e69f00", "#e8eaed"
"""Blue and orange: the colour-blind can tell them apart, too. Pixels without a centre are light grey."""

FRAME_COLOUR = "#d55e00"
"""Vermilion: a frame stands out from the blues of probabilities."""

_PROBABILITY_MAP, _IOU_MAP = "Blues", "viridis"
_SETS: tuple[SetName, ...] = ("train", "test")
_BATCH = 64
_WINDOW = 15
_SAMPLES = 8
_DPI = 110


def true_pixels(logits: Tensor, centers: Tensor) -> Tensor:
    """Return the probabilities of the true pixels, and whether they are the most probable ones.

    Args:
        logits: ``(B, H, W)``.
        centers: int64 ``(B, 1, 2)``, x and y of the true pixel.

    Returns:
        float32 ``(B, 2)``: the probability of the true pixel, in [0, 1], and 1 if it is the most probable one, else 0.
    """
    logits, pixels = logits.flatten(1).float(), pixel_index(centers[:, 0], logits.shape[-1])
    probability = logits.softmax(1).gather(1, pixels.unsqueeze(1)).squeeze(1)
    return torch.stack([probability, (logits.argmax(1) == pixels).float()], dim=1)


def per_sample(
    task: CoordinateTask, centers: Tensor, measure: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[np.float32]:
    """Compute values for all samples of a set, batch by batch.

    Args:
        task: The task, in evaluation mode.
        centers: int64 ``(n, objects, 2)``.
        measure: Computes values ``(B, ...)`` from the outputs and the centres of a batch.

    Returns:
        ``(n, ...)``.
    """
    batches = (batch.to(task.device) for batch in centers.split(_BATCH))
    values: list[NDArray[np.float32]] = [measure(task(batch), batch).float().cpu().numpy() for batch in batches]
    return np.concatenate(values)


def on_canvas(centers: Tensor, values: NDArray[np.float32], canvas_size: int) -> NDArray[np.float32]:
    """Place the values of samples at their centres.

    Args:
        centers: int64 ``(n, 1, 2)``, x and y in pixels.
        values: ``(n,)``.
        canvas_size: Height and width of the canvas, in pixels.

    Returns:
        ``(canvas_size, canvas_size)``, the first index is y; NaN where there is no centre.
    """
    x, y = centers[:, 0].cpu().numpy().T
    canvas = np.full((canvas_size, canvas_size), np.nan, dtype=np.float32)
    canvas[y, x] = values
    return canvas


def window(center: tuple[int, int], canvas_size: int, side: int = _WINDOW) -> tuple[int, int, int]:
    """Return a square of pixels around a centre, shifted where it would leave the canvas.

    Args:
        center: x and y in pixels.
        canvas_size: Height and width of the canvas, in pixels.
        side: Side of the square, in pixels; at most that of the canvas.

    Returns:
        Its first x, its first y, and its side.
    """
    side = min(side, canvas_size)
    x, y = (min(max(c - side // 2, 0), canvas_size - side) for c in center)
    return x, y, side


class Point(NamedTuple):
    """A sample to look at.

    Attributes:
        set_name: Its set.
        sample: Its index in the set.
        text: Why it was chosen.
    """

    set_name: SetName
    sample: int
    text: str


def choose_points(train: NDArray[np.float32], test: NDArray[np.float32]) -> list[Point]:
    """Choose the points of the paper's figure: a clear hit, a narrow hit, and a miss.

    Args:
        train: ``(n, 2)``, probabilities and hits of the training set, as `true_pixels` returns them.
        test: ``(m, 2)``, the same for the test set.

    Returns:
        The training hit with the highest probability, the test hit with the lowest probability, and the test miss with
        the lowest probability. If there is no hit, the miss with the highest probability takes its place; without a
        miss there is no third point. No point appears twice.
    """
    points = [
        _extreme("train", train, hit=True, highest=True, text="right, the surest")
        or _extreme("train", train, hit=False, highest=True, text="all wrong, the best"),
        _extreme("test", test, hit=True, highest=False, text="right, the least sure")
        or _extreme("test", test, hit=False, highest=True, text="all wrong, the best"),
        _extreme("test", test, hit=False, highest=False, text="wrong, the worst"),
    ]
    chosen: dict[tuple[SetName, int], Point] = {}
    for point in points:
        if point is not None:
            chosen.setdefault((point.set_name, point.sample), point)
    return list(chosen.values())


def _extreme(set_name: SetName, values: NDArray[np.float32], *, hit: bool, highest: bool, text: str) -> Point | None:
    """Return the hit or miss with the highest or lowest probability, the first of equals; None if there is none."""
    chosen = np.flatnonzero((values[:, 1] > 0.5) == hit)
    if len(chosen) == 0:
        return None
    probabilities = values[chosen, 0]
    index = probabilities.argmax() if highest else probabilities.argmin()
    return Point(set_name, int(chosen[index]), text)


def spread_out(count: int, chosen: int = _SAMPLES) -> list[int]:
    """Return at most ``chosen`` of ``count`` indices, evenly spaced from the first to the last."""
    return [round(index) for index in np.linspace(0, count - 1, min(chosen, count)).tolist()]


class CoordinatePictures(Pictures):
    """Draw the network's outputs at every place on the canvas, for the training and the test set.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0 draws at its end only.
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw the pictures of a task.

        Args:
            task: One of the three coordinate tasks.
            datamodule: A `NotSoClevrData`.

        Returns:
            Classification: "centers", which centres are found, and "probabilities" around single points. Regression:
            "positions". Rendering: "squares" and, with one object, "iou", how well each square is drawn.

        Raises:
            TypeError: The task or the data belong to another application.
        """
        if not (isinstance(task, CoordinateTask) and isinstance(datamodule, NotSoClevrData)):
            raise TypeError(f"{type(task).__name__} and {type(datamodule).__name__} are not those of coordinates")
        figures = next(draw for kind, draw in _FIGURES.items() if isinstance(task, kind))(task, datamodule.centers)
        return {name: as_picture(figure, _DPI) for name, figure in figures.items()}


def _classification(task: CoordinateTask, centers: Centers) -> dict[str, Figure]:
    train, test = (per_sample(task, of_set, true_pixels) for of_set in centers)
    return {
        "centers": _draw_centers(task, centers, (train[:, 1], test[:, 1])),
        "probabilities": _draw_points(task, centers, choose_points(train, test)),
    }


def _regression(task: CoordinateTask, centers: Centers) -> dict[str, Figure]:
    train, test = (per_sample(task, of_set, lambda positions, _: positions) for of_set in centers)
    return {"positions": _draw_positions(task, centers, (train, test))}


def _rendering(task: CoordinateTask, centers: Centers) -> dict[str, Figure]:
    def measure(logits: Tensor, batch: Tensor) -> Tensor:
        return pixel_iou(logits, task.targets(batch))

    figures = {"squares": _draw_squares(task, centers.test[spread_out(len(centers.test))])}
    if task.objects == 1:
        train, test = (per_sample(task, of_set, measure) for of_set in centers)
        figures["iou"] = _draw_iou(task, centers, (train, test))
    return figures


_FIGURES: dict[type[CoordinateTask], Callable[[CoordinateTask, Centers], dict[str, Figure]]] = {
    CoordinateClassification: _classification,
    CoordinateRegression: _regression,
    CoordinateRendering: _rendering,
}


def _new_figure(task: CoordinateTask, title: str, width: float, height: float) -> Figure:
    # Imported here, because the import takes a second and an error in the arguments should be reported at once.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    arm = "plain convolutions" if task.coords == "none" else f"CoordConv (coords={task.coords})"
    figure.suptitle(f"{arm}: {title}", fontsize=14)
    return figure


def _canvases(
    task: CoordinateTask, title: str, centers: Centers, values: Sequence[NDArray[np.float32]]
) -> tuple[Figure, list[tuple[Axes, SetName, Tensor, NDArray[np.float32]]]]:
    """Make a figure of two canvases, x to the right and y down; return axes, name, centres and values of each set."""
    figure = _new_figure(task, title, 10, 5.9)
    both = figure.subplots(1, 2, sharey=True)
    edge = task.canvas_size - 0.5
    for axes in both:
        axes.set(xlim=(-0.5, edge), ylim=(edge, -0.5), aspect="equal", xlabel="x in pixels")
    both[0].set_ylabel("y in pixels")
    return figure, list(zip(both, _SETS, centers, values, strict=True))


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
    figure = _new_figure(task, "pixel probabilities of single points, target framed", 4 * len(points), 7.6)
    rows = figure.subplots(2, len(points), squeeze=False)
    for point, around, whole in zip(points, *rows, strict=True):
        center = (centers.train if point.set_name == "train" else centers.test)[point.sample]
        logits = task(center.unsqueeze(0).to(task.device)).float()
        probabilities = logits.flatten().softmax(0).view(task.canvas_size, -1).cpu().numpy()
        x, y = center[0].tolist()
        part = window((x, y), task.canvas_size)
        _draw_probabilities(around, probabilities, part, (x, y, 1))
        _draw_probabilities(whole, probabilities, (0, 0, task.canvas_size), part)
        around.set_title(f"{point.set_name}: {point.text}\ntarget ({x}, {y}): {probabilities[y, x]:.2g}", fontsize=12)
        best_y, best_x = np.unravel_index(probabilities.argmax(), probabilities.shape)
        whole.set_title(f"most probable ({best_x}, {best_y}): {probabilities.max():.2g}", fontsize=12)
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
    image = axes.imshow(shown, cmap=_PROBABILITY_MAP, vmin=0, vmax=highest, extent=extent, interpolation="nearest")
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
        lines = LineCollection(
            ways, colors=WRONG_COLOUR, linewidths=0.8, alpha=0.25, zorder=2, label="from true to found"
        )
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
    colours = colormaps[_IOU_MAP].with_extremes(bad=GROUND_COLOUR)
    for axes, name, of_set, values in canvases:
        canvas = on_canvas(of_set, values, task.canvas_size)
        image = axes.imshow(canvas, cmap=colours, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: mean IoU {values.mean():.3f}")
    figure.colorbar(image, ax=[canvas[0] for canvas in canvases], location="bottom", shrink=0.5, aspect=40, label="IoU")
    return figure

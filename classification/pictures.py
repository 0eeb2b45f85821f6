"""Draw the confusion matrix, the accuracy of each class, and the images with the largest loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw
from torchvision.transforms.v2.functional import to_pil_image

from classification.data import ClassificationData
from classification.metrics import ClassificationReport, WorstExample
from classification.predictions import complete_names
from classification.tasks import Classifier
from coordconv_apps.training.pictures import Pictures, arm_in_words
from coordconv_apps.utils.contact_sheet import GROUND, Grid, contact_sheet
from coordconv_apps.utils.fonts import pillow_font, readable
from coordconv_apps.utils.plotting import as_picture, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningDataModule, LightningModule
    from matplotlib.figure import Figure
    from torch import Tensor

TRUE_COLOUR, PREDICTED_COLOUR = "#26c6da", "#ff9800"
"""Cyan and orange: distinct on black and for colour-blind readers."""

BEST_COLOUR, WORST_COLOUR = "#1f5fd6", "#d55e00"
"""Blue and vermilion: bars of the best and of the worst classes, where not all are shown."""

MAX_BARS = 40
"""Maximum number of classes whose accuracy is shown: half of them the best, half the worst."""

_MAX_COUNTED = 20  # up to this many classes, the numbers of images are written into the matrix
_MAX_NAMED = 100  # up to this many classes, each row is named
_NAME_LENGTH = 24
_TITLE_SIZE = 12
_SIDE, _MAX_SIDE = 160, 256  # small images are enlarged to about the first, large ones shrunk to the second; pixels
_COLUMNS, _LINE, _TEXT_SIZE = 6, 18, 13
_LEGEND = (("true class", TRUE_COLOUR), ("predicted class", PREDICTED_COLOUR))
_SPLIT_NAMES = {"val": "validation", "test": "test"}


class ClassificationPictures(Pictures):
    """Draw the last evaluation: confusion matrix, accuracy of each class, images with the largest loss."""

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw "confusion", "classes" and "worst"; nothing if no image has been evaluated yet."""
        if not (isinstance(task, Classifier) and isinstance(datamodule, ClassificationData)):
            raise TypeError(f"{type(self).__name__} cannot draw {type(task).__name__} with {type(datamodule).__name__}")
        report, split = task.last_evaluation, task.evaluated_split
        if report is None or not report.worst:
            return {}
        names = [readable(name) for name in complete_names(datamodule.class_names, len(report.confusion))]
        batch = datamodule.images_at([example.image_index for example in report.worst], split)
        # Files that have become unreadable are left out.
        images = dict(zip(batch.indices.tolist(), batch.images, strict=True))
        arm, count = arm_in_words(task.coords), f"{int(report.confusion.sum()):,} {_SPLIT_NAMES[split]} images"
        pictures = {
            "confusion": as_picture(draw_confusion(report.confusion, names, f"{arm}: {count}")),
            "classes": as_picture(draw_classes(report, names, f"{arm}: {count}")),
        }
        worst = [example for example in report.worst if example.image_index in images]
        if worst:
            title = f"{arm}: largest loss of {count}"
            pictures["worst"] = draw_worst([images[one.image_index] for one in worst], worst, names, title)
        return pictures


def shorten(name: str, length: int = _NAME_LENGTH) -> str:
    """Shorten a name to at most ``length`` characters.

    >>> shorten("a very long name", 10)
    'a very ...'
    """
    return name if len(name) <= length else name[: length - 3] + "..."


def percent(fraction: float) -> str:
    """Format a fraction as percent.

    >>> percent(0.1234), percent(0.0001)
    ('12.3 %', '< 0.1 %')
    """
    return "< 0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"


# ------------------------------------------------------------------ figures


def draw_confusion(confusion: Tensor, names: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, int64 ``(C, C)``: true classes are rows, and colours fractions of a row."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    classes = len(confusion)
    shares = confusion.float() / confusion.sum(1, keepdim=True)  # NaN without images
    cell = min(0.12 + 4 / classes, 0.8, 16 / classes)  # inches
    step = math.ceil(classes / _MAX_NAMED)  # of many classes, only every second or third is named
    font = min(10.0, 0.6 * 72 * cell * step)
    margin = 0.6 + 0.009 * font * max(len(shorten(name)) for name in names)
    side = cell * classes
    figure = new_figure(title, max(1.08 * side + margin + 1.3, 6), max(side + margin + 0.5, 4), _TITLE_SIZE)
    axes = figure.subplots()
    colours = colormaps["Blues"].with_extremes(bad="#d8d8d8")
    # The square root, so that few wrong images among many are visible.
    image = axes.imshow(shares.numpy(), cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    ticks = list(range(0, classes, step))
    labels = [shorten(names[label]) for label in ticks]
    axes.set_xticks(ticks, labels, fontsize=font, rotation=90, parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=font, parse_math=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="fraction of the true class's images")
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 0.75, 1])
    if classes <= _MAX_COUNTED:
        font = min(11.0, 72 * cell / (0.65 * len(str(int(confusion.max()))) + 0.6))
        for row, column in confusion.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.35 else "black"
            count = str(int(confusion[row, column]))
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=font)
    return figure


def best_and_worst(accuracies: Sequence[float], limit: int = MAX_BARS) -> tuple[list[int], int]:
    """Return the classes to show from best to worst, and the number of classes left out in the middle.

    Args:
        accuracies: Accuracy of each class; NaN for a class without images, which is not shown.
        limit: Maximum number of classes, even.

    >>> best_and_worst([0.9, 0.1, 0.5, 0.7], limit=2)
    ([0, 1], 2)
    """
    there = [label for label, accuracy in enumerate(accuracies) if not math.isnan(accuracy)]
    ranked = sorted(there, key=lambda label: -accuracies[label])
    hidden = max(0, len(ranked) - limit)
    return (ranked[: limit // 2] + ranked[-(limit // 2) :] if hidden else ranked), hidden


def draw_classes(report: ClassificationReport, names: Sequence[str], title: str) -> Figure:
    """Draw the accuracy of each class as a bar, from best to worst; with many classes, only both ends."""
    accuracies, counts = report.class_accuracies, report.confusion.sum(1).tolist()
    shown, hidden = best_and_worst(accuracies.tolist())
    half = len(shown) // 2
    # One row stays empty where classes are left out.
    places = [number + (hidden > 0 and number >= half) for number in range(len(shown))]
    figure = new_figure(title, 8, 1.4 + 0.22 * (places[-1] + 1), _TITLE_SIZE)
    axes = figure.subplots()
    values = [float(accuracies[label]) for label in shown]
    colours = [WORST_COLOUR if hidden and number >= half else BEST_COLOUR for number in range(len(shown))]
    axes.barh(places, values, color=colours, height=0.75)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # covers the line of the mean
    for place, label, value in zip(places, shown, values, strict=True):
        text = f"{percent(value)} of {counts[label]:,}"
        axes.text(value + 0.01, place, text, va="center", fontsize=8, bbox=ground)
    if hidden:
        axes.text(0.01, half, f"... {hidden:,} classes in between ...", va="center", fontsize=8, style="italic")
    mean = float(accuracies.nanmean())
    axes.axvline(mean, color="#404040", linewidth=1, linestyle="--", zorder=0)
    labels = [shorten(names[label]) for label in shown]
    axes.set_yticks(places, labels, fontsize=8, parse_math=False)
    # Leaves room for the text beside the longest bar.
    axes.set(xlim=(0, 1.18), ylim=(places[-1] + 0.6, -0.6), xlabel=f"accuracy (dashed: mean over classes, {mean:.3f})")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# ------------------------------------------------------------------ worst images


def draw_worst(
    images: Sequence[Tensor], examples: Sequence[WorstExample], names: Sequence[str], title: str
) -> Image.Image:
    """Draw images, each with its true and predicted class and the probabilities of both, in a grid.

    There is at least one image, uint8 ``(3, S, S)``; all are of one size.
    """
    tiles = [_draw_tile(image, one, names) for image, one in zip(images, examples, strict=True)]
    legend = [(colour, f"{text}, probability") for text, colour in _LEGEND]
    return contact_sheet([Grid(tiles, _COLUMNS)], title=title, legend=legend)


def _draw_tile(image: Tensor, example: WorstExample, names: Sequence[str]) -> Image.Image:
    """Draw an image above its two lines of text. Small images are enlarged, large ones are shrunk."""
    size = image.shape[-1]
    side = size * max(1, round(_SIDE / size)) if size <= _MAX_SIDE else _MAX_SIDE
    method = Image.Resampling.NEAREST if side >= size else Image.Resampling.BOX
    picture: Image.Image = to_pil_image(image)
    tile = Image.new("RGB", (side, side + 2 * _LINE), (GROUND,) * 3)
    tile.paste(picture.resize((side, side), method))
    draw = ImageDraw.Draw(tile)
    found = (names[example.label], math.exp(-example.loss)), (names[example.predicted], example.probability)
    for line, ((name, probability), (_, colour)) in enumerate(zip(found, _LEGEND, strict=True)):
        text = _shorten_to_width(name, f": {percent(probability)}", side - 2)
        draw.text((1, side + line * _LINE + 1), text, fill=colour, font=pillow_font(text, _TEXT_SIZE))
    return tile


def _shorten_to_width(name: str, end: str, width: int) -> str:
    """Return ``name + end``, with the name shortened if that is too wide."""
    text, length, font = name + end, len(name), pillow_font(name + end, _TEXT_SIZE)
    while length > 1 and font.getlength(text) > width:
        length -= 1
        text = name[:length] + "..." + end
    return text

"""What a classifier takes for what: the confusion matrix, each class's accuracy, and the worst-classified pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from classification.data import ClassificationData
from classification.metrics import Report, WorstExample
from coordconv_apps.training.pictures import Pictures
from coordconv_apps.utils.plotting import as_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from lightning.pytorch import LightningDataModule, LightningModule
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from coordconv_apps.nn.coords import Coords

TRUE_COLOUR, FOUND_COLOUR = "#26c6da", "#ff9800"
"""Cyan and orange: apart from each other on black and for colour-blind eyes."""

BEST_COLOUR, WORST_COLOUR = "#1f5fd6", "#d55e00"
"""Blue and vermilion, of the bars of the best and of the worst classes where not all are shown."""

MAX_BARS = 40
"""Classes whose accuracy is shown, at most: half of them the best ones, half the worst."""

_MAX_COUNTED = 20  # classes up to which the numbers of images are written into the matrix
_MAX_NAMED = 100  # classes up to which each row has its name
_NAME_LENGTH = 24
_DPI = 110
_SIDE, _MAX_SIDE = 160, 256  # small images are enlarged to about the one, large ones shrunk to the other; in pixels
_COLUMNS, _GAP, _BAR, _LINE = 6, 8, 34, 18
_GROUND, _INK = "#20242a", "#eceff1"
_PARTS = {"val": "validation", "test": "test"}


@runtime_checkable
class ShowsReport(Protocol):
    """A task whose results can be drawn.

    Attributes:
        coords: Which coordinates its network gets.
        shown: What its last evaluation found; None before the first one.
        shown_part: What that evaluation was of.
    """

    coords: Coords
    shown: Report | None
    shown_part: Literal["val", "test"]


class ClassificationPictures(Pictures):
    """What the last evaluation found: which classes are mixed up, how well each is told, and the worst images.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0 draws at its end only.
    """

    def __init__(self, every_n_epochs: int = 0) -> None:
        super().__init__(every_n_epochs)

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draws the pictures of an evaluation.

        Args:
            task: One with the attributes of `ShowsReport`.
            datamodule: A `ClassificationData`.

        Returns:
            "confusion", "classes" and "worst"; nothing if no image has been evaluated yet.
        """
        if not (isinstance(task, ShowsReport) and isinstance(datamodule, ClassificationData)):
            raise TypeError(f"{type(task).__name__} and {type(datamodule).__name__} are not those of classification")
        report, part = task.shown, task.shown_part
        if report is None or not report.worst:
            return {}
        names = all_names(datamodule.class_names, len(report.confusion))
        arm = "plain convolutions" if task.coords == "none" else f"CoordConv (coords={task.coords})"
        batch = datamodule.images_at([example.number for example in report.worst], part)
        # Pictures that cannot be read any more are left out.
        images = dict(zip(batch.indices.tolist(), datamodule.to_pixels(batch.images), strict=True))
        count = f"{int(report.confusion.sum()):,} {_PARTS[part]} images"
        pictures = {
            "confusion": as_picture(draw_confusion(report.confusion, names, f"{arm}: {count}"), _DPI),
            "classes": as_picture(draw_classes(report, names, f"{arm}: {count}"), _DPI),
        }
        worst = [example for example in report.worst if example.number in images]
        if worst:
            title = f"{arm}: the worst of {count}"
            pictures["worst"] = make_sheet([images[one.number] for one in worst], worst, names, title)
        return pictures


def all_names(names: Sequence[str], number: int) -> list[str]:
    """A name for each class of a network, which may know more of them than the data: then the number.

    Args:
        names: Of the data's classes.
        number: Of the network's classes.
    """
    return [names[label] if label < len(names) else str(label) for label in range(number)]


def shortened(name: str, length: int = _NAME_LENGTH) -> str:
    """A name of so many characters at most, without its end if it is longer."""
    return name if len(name) <= length else name[: length - 3] + "..."


def percent(share: float) -> str:
    """A share in [0, 1] as a text; what would be rounded to nothing is less than the least there is."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


# ------------------------------------------------------------------ figures


def _new_figure(title: str, width: float, height: float) -> tuple[Figure, Axes]:
    # Imported here: it costs a second that an error in the arguments should not wait for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure, figure.subplots()


def draw_confusion(confusion: Tensor, names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix. Colours are shares of a row; few classes have their numbers of images written in.

    Args:
        confusion: int64 ``(C, C)``: images by true class (row) and predicted class (column).
        names: Of the C classes.
        title: Above it.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    classes = len(confusion)
    shares = (confusion.float() / confusion.sum(1, keepdim=True)).numpy()  # not a number without images
    cell = min(0.12 + 4 / classes, 0.8, 16 / classes)  # inches
    step = math.ceil(classes / _MAX_NAMED)  # of too many classes every second one is named, every third, and so on
    font = min(10.0, 0.6 * 72 * cell * step)
    margin = 0.6 + 0.009 * font * max(len(shortened(name)) for name in names)
    side = cell * classes
    figure, axes = _new_figure(title, max(1.08 * side + margin + 1.3, 6), max(side + margin + 0.5, 4))
    colours = colormaps["Blues"].with_extremes(bad="#d8d8d8")
    # The root of the share: a few mistaken images of many are to be seen.
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    ticks = list(range(0, classes, step))
    labels = [shortened(names[label]) for label in ticks]
    axes.set_xticks(ticks, labels, fontsize=font, rotation=90, parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=font, parse_math=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="share of the true class's images")
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 0.75, 1])
    if classes <= _MAX_COUNTED:
        _write_counts(axes, confusion, cell)
    return figure


def _write_counts(axes: Axes, confusion: Tensor, cell: float) -> None:
    shares = confusion / confusion.sum(1, keepdim=True)
    widest = len(str(int(confusion.max())))
    font = min(11.0, 72 * cell / (0.65 * widest + 0.6))
    for row, column in confusion.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.35 else "black"
        count = str(int(confusion[row, column]))
        axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=font)


def chosen_bars(accuracies: Sequence[float], limit: int = MAX_BARS) -> tuple[list[int], int]:
    """Which classes to show: all of them, or the best and the worst.

    Args:
        accuracies: Of each class; not a number for a class without images, which is not shown.
        limit: How many to show at most, an even number.

    Returns:
        The classes from best to worst, of equal ones the first by number first, and how many are left out after the
        first half of them.
    """
    there = [label for label, accuracy in enumerate(accuracies) if not math.isnan(accuracy)]
    ranked = sorted(there, key=lambda label: -accuracies[label])
    hidden = max(0, len(ranked) - limit)
    return (ranked[: limit // 2] + ranked[-(limit // 2) :] if hidden else ranked), hidden


def draw_classes(report: Report, names: Sequence[str], title: str) -> Figure:
    """Draws each class's accuracy as a bar, from best to worst; of many classes the ends only.

    Args:
        report: Of an evaluation, with at least one image.
        names: Of the classes.
        title: Above it.
    """
    accuracies, counts = report.class_accuracies, report.confusion.sum(1).tolist()
    shown, hidden = chosen_bars(accuracies.tolist())
    half = len(shown) // 2
    # A row is left free where classes are left out.
    places = [number + (hidden > 0 and number >= half) for number in range(len(shown))]
    figure, axes = _new_figure(title, 8, 1.4 + 0.22 * (places[-1] + 1))
    values = [float(accuracies[label]) for label in shown]
    colours = [WORST_COLOUR if hidden and number >= half else BEST_COLOUR for number in range(len(shown))]
    axes.barh(places, values, color=colours, height=0.75)
    for place, label, value in zip(places, shown, values, strict=True):
        text = f"{percent(value)} of {counts[label]:,}"
        # On a white ground, which covers the line of the mean.
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(value + 0.01, place, text, va="center", fontsize=8, bbox=ground)
    if hidden:
        axes.text(0.01, half, f"... {hidden:,} classes in between ...", va="center", fontsize=8, style="italic")
    mean = float(accuracies.nanmean())
    axes.axvline(mean, color="#404040", linewidth=1, linestyle="--", zorder=0)
    labels = [shortened(names[label]) for label in shown]
    axes.set_yticks(places, labels, fontsize=8, parse_math=False)
    # Room for the numbers at the right of the longest bar.
    axes.set(xlim=(0, 1.18), ylim=(places[-1] + 0.6, -0.6), xlabel=f"accuracy (dashed: mean over classes, {mean:.3f})")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# ------------------------------------------------------------------ the sheet


def make_sheet(
    images: Sequence[Tensor], examples: Sequence[WorstExample], names: Sequence[str], title: str
) -> Image.Image:
    """Sets images out in rows, each above its true and its predicted class and the probabilities of both.

    Args:
        images: At least one, ``(3, S, S)``, 0 to 1, all of one size.
        examples: What was made of each.
        names: Of the classes.
        title: What the sheet shows.

    Returns:
        An RGB picture.
    """
    side = _drawn_side(images[0].shape[-1])
    columns = min(_COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    font, large = ImageFont.load_default(13), ImageFont.load_default(18)
    legend = (("true class", TRUE_COLOUR), ("predicted class", FOUND_COLOUR))
    # As wide as its title at least.
    width = max(columns * (side + _GAP) + _GAP, math.ceil(large.getlength(title)) + 2 * _GAP, 360)
    tall = side + 2 * _LINE + _GAP
    sheet = Image.new("RGB", (width, 2 * _BAR + _GAP + rows * tall), _GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), title, fill=_INK, font=large)
    x = float(_GAP)
    for text, colour in legend:
        draw.text((x, _BAR + 8), f"{text}, probability", fill=colour, font=font)
        x += font.getlength(f"{text}, probability") + 24
    for number, (image, one) in enumerate(zip(images, examples, strict=True)):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (side + _GAP), 2 * _BAR + row * tall
        sheet.paste(_drawn(image, side), (left, top))
        found = (names[one.label], math.exp(-one.loss)), (names[one.predicted], one.probability)
        for line, ((name, probability), (_, colour)) in enumerate(zip(found, legend, strict=True)):
            text = _fitting(name, f": {percent(probability)}", side - 2, font)
            draw.text((left + 1, top + side + line * _LINE + 1), text, fill=colour, font=font)
    return sheet


def _drawn_side(side: int) -> int:
    return side * max(1, round(_SIDE / side)) if side <= _MAX_SIDE else _MAX_SIDE


def _drawn(image: Tensor, side: int) -> Image.Image:
    method = Image.Resampling.NEAREST if side >= image.shape[-1] else Image.Resampling.BOX
    # Bytes: of floating point numbers the conversion cuts the fraction off.
    picture: Image.Image = to_pil_image((image.float().clamp(0, 1) * 255).round().byte().cpu())
    return picture.resize((side, side), method)


def _fitting(name: str, end: str, width: int, font: Any) -> str:  # noqa: ANN401  # Pillow has two kinds of fonts
    """The name and what follows it, the name without its end if that is too wide."""
    text, length = name + end, len(name)
    while length > 1 and font.getlength(text) > width:
        length -= 1
        text = name[:length] + "..." + end
    return text

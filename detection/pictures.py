"""Canvases with true and found boxes, as pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from coordconv_apps.training.pictures import Pictures
from detection.boxes import MAX_PROPOSALS
from detection.data import DetectionData
from detection.task import DetectionTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningDataModule, LightningModule
    from torch import Tensor

TRUE_COLOUR, FOUND_COLOUR = "#26c6da", "#ff9800"
"""Cyan and orange: apart from each other on black, on white and for colour-blind eyes."""

_SHEET_SIDE = 320
"""Canvases are enlarged by a whole number to about as many pixels."""

_GAP, _BAR = 8, 34
_GROUND, _INK = "#20242a", "#eceff1"


def draw_boxes(
    picture: Image.Image,
    *,
    found: Sequence[Tensor],
    found_text: Sequence[str],
    true: Sequence[Tensor] = (),
    true_text: Sequence[str] = (),
    zoom: float = 1.0,
) -> Image.Image:
    """Enlarge a picture and draw boxes on it, true ones broad and below, found ones narrow and above.

    Args:
        picture: Any size and mode.
        found: Found boxes ``(4,)``, ``(x1, y1, x2, y2)`` in pixels of ``picture``; drawn last to first.
        found_text: Text of each found box, above its top left corner; may be empty.
        true: True boxes, likewise.
        true_text: Text of each true box, below its bottom right corner.
        zoom: Factor of enlargement.

    Returns:
        An RGB picture, ``zoom`` times as large.
    """
    size = (max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom)))
    result = picture.convert("RGB").resize(size, Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.BOX)
    draw = ImageDraw.Draw(result)
    font = ImageFont.load_default(13)
    for box in true:
        _rectangle(draw, box, zoom, TRUE_COLOUR, 4)
    for box in reversed(found):
        _rectangle(draw, box, zoom, FOUND_COLOUR, 2)
    for box, text in zip(true, true_text, strict=True):
        _tag(draw, (float(box[2]) * zoom, float(box[3]) * zoom), text, TRUE_COLOUR, font, size, end=True)
    for box, text in reversed(list(zip(found, found_text, strict=True))):
        _tag(draw, (float(box[0]) * zoom, float(box[1]) * zoom), text, FOUND_COLOUR, font, size, end=False)
    return result


def _rectangle(draw: ImageDraw.ImageDraw, box: Tensor, zoom: float, colour: str, width: int) -> None:
    x1, y1, x2, y2 = (float(v) * zoom for v in box)
    # A box ends where its last pixel ends; PIL counts the last pixel in.
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)


def _tag(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    colour: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
    *,
    end: bool,
) -> None:
    """Write on a patch of colour above a box's first corner, or below its last, as far as the picture reaches."""
    if not text:
        return
    width, height = math.ceil(draw.textlength(text, font=font)) + 4, 16
    x, y = (at[0] - width, at[1]) if end else (at[0], at[1] - height)
    x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + 2, y), text, fill="black", font=font)


def make_sheet(pictures: Sequence[Image.Image], *, title: str, legend: str, columns: int = 4) -> Image.Image:
    """Set pictures out in rows under a title and the legend of the two colours.

    Args:
        pictures: At least one, all of one size.
        title: What the sheet shows.
        legend: What the boxes in `FOUND_COLOUR` are.
        columns: Pictures per row.

    Returns:
        An RGB picture.
    """
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP + 2 * _BAR), _GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    draw.text((_GAP, 8), title, fill=_INK, font=font)
    x = float(_GAP)
    for colour, text in ((TRUE_COLOUR, "true box and class"), (FOUND_COLOUR, legend)):
        draw.rectangle((x, _BAR + 8, x + 18, _BAR + 22), outline=colour, width=4)
        draw.text((x + 26, _BAR + 4), text, fill=_INK, font=font)
        x += 26 + draw.textlength(text, font=font) + 30
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        sheet.paste(picture, (_GAP + column * (width + _GAP), 2 * _BAR + _GAP + row * (height + _GAP)))
    return sheet


class DetectionPictures(Pictures):
    """True and found boxes on the first test canvases, always the same ones.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0 draws at its end only.
        canvases: How many canvases to draw.
    """

    def __init__(self, every_n_epochs: int = 5, canvases: int = 12) -> None:
        super().__init__(every_n_epochs)
        if canvases < 1:
            raise ValueError(f"canvases={canvases}: must be an integer of at least 1")
        self.canvases = canvases

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw the sheet "detections".

        Args:
            task: A `DetectionTask`.
            datamodule: A `DetectionData`.

        Returns:
            One picture.
        """
        if not (isinstance(task, DetectionTask) and isinstance(datamodule, DetectionData)):
            raise TypeError(f"{type(task).__name__} and {type(datamodule).__name__} are not those of detection")
        batch = datamodule.example_canvases(self.canvases)
        found, _ = task.find(batch["images"].to(task.device))
        names = datamodule.class_names
        pictures = []
        for image, target, result in zip(batch["images"], batch["targets"], found, strict=True):
            boxes, text = describe(task, result, names)
            pictures.append(
                draw_boxes(
                    to_pil_image(image),
                    found=boxes,
                    found_text=text,
                    true=list(target["boxes"]),
                    true_text=[names[label - 1] for label in target["labels"].tolist()],
                    zoom=max(1, round(_SHEET_SIDE / max(image.shape[-2:]))),
                )
            )
        kind = "plain convolutions" if task.coords == "none" else "CoordConv"
        kept = (
            f"the {MAX_PROPOSALS} best proposals, with the highest score"
            if task.protocol == "proposals"
            else f"found: class and score (from {task.score_threshold:g})"
        )
        steps = f", {task.trainer.global_step} steps" if task.trainer.state.fn == TrainerFn.FITTING else ""
        title = f"{kind} (coords={task.coords}){steps}: test canvases"
        return {"detections": make_sheet(pictures, title=title, legend=kept)}


def describe(task: DetectionTask, result: dict[str, Tensor], names: Sequence[str]) -> tuple[list[Tensor], list[str]]:
    """What to draw of a picture's detections.

    Args:
        task: The task that found them.
        result: Its detections in one picture, as `DetectionTask.find` gives them.
        names: Names of the classes.

    Returns:
        The boxes, and the text of each.
    """
    boxes: list[Tensor] = []
    texts: list[str] = []
    for box, label, score in zip(result["boxes"], result["labels"].tolist(), result["scores"].tolist(), strict=True):
        if task.protocol == "proposals":
            boxes.append(box)
            texts.append("" if texts else f"{score:.2f}")  # ten scores would hide what is below them
        elif score >= task.score_threshold:
            boxes.append(box)
            # Names come from the data, classes from the network: a checkpoint may know more of them.
            texts.append(f"{names[label - 1] if label <= len(names) else label} {score:.2f}")
    return boxes, texts

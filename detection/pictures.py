"""Draw canvases with true and found boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype, to_pil_image
from torchvision.utils import draw_bounding_boxes

from coordconv_apps.training.pictures import Pictures, arm_in_words
from coordconv_apps.utils.argument_checks import check_at_least
from coordconv_apps.utils.contact_sheet import GROUND, Grid, contact_sheet
from coordconv_apps.utils.fonts import pillow_font, readable
from detection.base_data_module import DetectionDataModule
from detection.batches import DetectionTarget
from detection.tasks import DetectionTask

TRUE_COLOUR, FOUND_COLOUR = "#26c6da", "#ff9800"
"""Cyan and orange: easy to tell apart on black, on white, and for colour-blind readers."""

_CANVAS_SIDE = 320
"""Canvases are enlarged by a whole number to about this many pixels."""

_LARGEST_SIDE = 480
"""Larger images are shrunk for the contact sheet, in pixels."""


def draw_boxes(
    image: Tensor,
    *,
    found: Tensor,
    found_text: Sequence[str],
    true: Tensor | None = None,
    true_text: Sequence[str] = (),
    zoom: int = 1,
) -> Image.Image:
    """Enlarge an image and draw true boxes (broad lines) and found boxes (narrow lines, on top).

    Args:
        image: uint8 ``(1 or 3, H, W)``.
        found: Found boxes ``(n, 4)`` in pixels of ``image``; the first is drawn last.
        found_text: Text above the top left corner of each found box; may be empty.
        true: True boxes ``(m, 4)``.
        true_text: Text below the bottom right corner of each true box.
        zoom: Factor of enlargement.
    """
    true = torch.zeros(0, 4) if true is None else true
    enlarged = image.expand(3, -1, -1).repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    for boxes, colour, width in ((true * zoom, TRUE_COLOUR, 4), (found.flip(0) * zoom, FOUND_COLOUR, 2)):
        if len(boxes):
            # A box ends where its last pixel ends, but torchvision draws the last pixel as well.
            last = torch.maximum(boxes[:, :2], boxes[:, 2:] - 1)
            edges = torch.cat((boxes[:, :2], last), dim=1)
            enlarged = draw_bounding_boxes(enlarged, edges, colors=colour, width=width)
    picture: Image.Image = to_pil_image(enlarged)
    for (_, _, x, y), text in zip((true * zoom).tolist(), true_text, strict=True):
        _draw_tag(picture, x, y, text, TRUE_COLOUR, end=True)
    for (x, y, _, _), text in reversed(list(zip((found * zoom).tolist(), found_text, strict=True))):
        _draw_tag(picture, x, y, text, FOUND_COLOUR, end=False)
    return picture


def _draw_tag(picture: Image.Image, x: float, y: float, text: str, colour: str, *, end: bool) -> None:
    """Write on a coloured patch above a box's first corner, or (end) below its last, but within the picture.

    Torchvision writes every label into the first corner of its box: the labels of a true box and its found box would
    overlap, and labels at the border would be cut off.
    """
    if not text:
        return
    text = readable(text)
    draw, font = ImageDraw.Draw(picture), pillow_font(text, 13)
    width, height = math.ceil(draw.textlength(text, font=font)) + 4, 16
    x, y = (x - width, y) if end else (x, y - height)
    x, y = min(max(x, 0), picture.width - width), min(max(y, 0), picture.height - height)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    draw.text((x + 2, y), text, fill="black", font=font)


def true_captions(target: DetectionTarget, class_names: Sequence[str]) -> list[str]:
    """Return the class of each true box, with the word crowd where COCO's annotations mark one.

    >>> labels, iscrowd = torch.tensor([1, 2]), torch.tensor([0, 1])
    >>> true_captions({"boxes": torch.ones(2, 4), "labels": labels, "iscrowd": iscrowd}, ["cat", "dog"])
    ['cat', 'crowd of dog']
    """
    names = [class_names[label - 1] for label in target["labels"].tolist()]
    crowds = target["iscrowd"].tolist() if "iscrowd" in target else [0] * len(names)
    return [f"crowd of {name}" if crowd else name for name, crowd in zip(names, crowds, strict=True)]


class DetectionPictures(Pictures):
    """Draw true and predicted boxes on the first test canvases, always the same ones.

    Args:
        every_n_epochs: Epochs between pictures during ``fit``; 0 draws at the end only.
        canvases: Number of canvases to draw.
    """

    def __init__(self, every_n_epochs: int = 5, canvases: int = 12) -> None:
        super().__init__(every_n_epochs)
        check_at_least(1, canvases=canvases)
        self.canvases = canvases

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        """Draw the sheet "detections"; nothing if none of its images can be read."""
        if not (isinstance(task, DetectionTask) and isinstance(datamodule, DetectionDataModule)):
            raise TypeError(f"{type(self).__name__} cannot draw {type(task).__name__} with {type(datamodule).__name__}")
        batch = datamodule.examples(self.canvases)
        images = batch["images"]
        if not len(images):
            return {}
        found = task.find([image.to(task.device) for image in images]).detections
        names = datamodule.class_names
        pictures = []
        for image, target, detections in zip(images, batch["targets"], found, strict=True):
            kept = task.kept(detections)
            pictures.append(
                draw_boxes(
                    to_dtype(image, torch.uint8, scale=True),
                    found=kept["boxes"],
                    found_text=task.captions(kept, names),
                    true=target["boxes"],
                    true_text=true_captions(target, names),
                    zoom=max(1, round(_CANVAS_SIDE / max(image.shape[-2:]))),
                )
            )
        pictures = _same_size(pictures)
        steps = f", {task.trainer.global_step} steps" if task.trainer.state.fn == TrainerFn.FITTING else ""
        what = "canvases" if datamodule.channels == 1 else "images"
        title = f"{arm_in_words(task.coords)}{steps}: test {what}"
        legend = [(TRUE_COLOUR, "true box and class"), (FOUND_COLOUR, task.legend)]
        return {"detections": contact_sheet([Grid(pictures, 4)], title=title, legend=legend)}


def _same_size(pictures: list[Image.Image]) -> list[Image.Image]:
    """Put pictures of different sizes on grounds of one size, and shrink large ones first."""
    if len({picture.size for picture in pictures}) <= 1 and max(pictures[0].size) <= _LARGEST_SIDE:
        return pictures
    for picture in pictures:
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    size = (max(picture.width for picture in pictures), max(picture.height for picture in pictures))
    return [ImageOps.pad(picture, size, color=(GROUND,) * 3) for picture in pictures]

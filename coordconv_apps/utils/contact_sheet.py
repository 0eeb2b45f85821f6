"""Contact sheets: pictures in grids below a title, a legend and captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from coordconv_apps.utils.fonts import pillow_font, readable

GAP, BAR = 8, 34  # around pictures, and the height of a line of text, in pixels
GROUND, INK = 36, "#eceff1"
_TITLE_SIZE, _TEXT_SIZE = 18, 15


class Grid(NamedTuple):
    """RGB pictures of one size, at least one.

    Attributes:
        pictures: The pictures, row by row.
        columns: Number of pictures in a row.
        caption: A line of text above the grid; may be empty.
        labels: A short text beside each row; may be empty.
    """

    pictures: Sequence[Image.Image]
    columns: int
    caption: str = ""
    labels: Sequence[str] = ()


def contact_sheet(grids: Sequence[Grid], *, title: str, legend: Sequence[tuple[str, str]] = ()) -> Image.Image:
    """Arrange grids one below the other, below a title and a legend of colours and what each of them means.

    >>> contact_sheet([Grid([Image.new("RGB", (64, 64))] * 3, 2)], title="digits", legend=[("red", "true")]).size
    (152, 220)
    """
    title, legend = readable(title), [(colour, readable(text)) for colour, text in legend]
    blocks = [_arrange(grid) for grid in grids]
    labels = [label for grid in grids for label in grid.labels]
    left = max((math.ceil(_width(label, _TEXT_SIZE)) for label in labels), default=-GAP) + GAP
    texts = [_width(title, _TITLE_SIZE), sum(56 + _width(text, _TEXT_SIZE) for _, text in legend)]
    texts += [left + _width(grid.caption, _TEXT_SIZE) for grid in grids]
    lines = 1 + bool(legend) + sum(bool(grid.caption) for grid in grids)
    width = max(left + max(block.width for block in blocks), math.ceil(max(texts)) + 2 * GAP)
    sheet = Image.new("RGB", (width, BAR * lines + sum(block.height for block in blocks)), (GROUND,) * 3)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, 8), title, _TITLE_SIZE)
    x, top = float(GAP), BAR
    for colour, text in legend:
        draw.rectangle((x, top + 8, x + 18, top + 22), outline=colour, width=4)
        _write(draw, (x + 26, top + 6), text)
        x += 56 + _width(text, _TEXT_SIZE)
    top += BAR * bool(legend)
    for grid, block in zip(grids, blocks, strict=True):
        if grid.caption:
            _write(draw, (left + GAP, top + 10), grid.caption)
            top += BAR
        sheet.paste(block, (left, top))
        side = grid.pictures[0].height
        for row, label in enumerate(grid.labels):
            _write(draw, (GAP, top + GAP + row * (side + GAP) + side // 2), label, anchor="lm")
        top += block.height
    return sheet


def _arrange(grid: Grid) -> Image.Image:
    """Return the pictures in rows, with gaps between and around them."""
    pixels = [pil_to_tensor(picture) for picture in grid.pictures]
    block: Image.Image = to_pil_image(make_grid(pixels, grid.columns, padding=GAP, pad_value=GROUND))
    if len(pixels) > 1:
        return block
    framed = Image.new("RGB", (block.width + 2 * GAP, block.height + 2 * GAP), (GROUND,) * 3)
    framed.paste(block, (GAP, GAP))  # make_grid puts no gap around a single picture
    return framed


def _width(text: str, size: int) -> float:
    return pillow_font(text, size).getlength(text)


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int = _TEXT_SIZE, anchor: str = "la"
) -> None:
    draw.text(place, text, fill=INK, font=pillow_font(text, size), anchor=anchor)

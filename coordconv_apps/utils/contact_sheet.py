"""Contact sheets: pictures in a grid below a title and a legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

GAP, BAR = 8, 34  # around pictures, and the height of a line of text, in pixels
GROUND, INK = 36, "#eceff1"


def contact_sheet(
    pictures: Sequence[Image.Image], *, title: str, legend: Sequence[tuple[str, str]], columns: int
) -> Image.Image:
    """Arrange RGB pictures of one size, at least one, below a title and a legend.

    Args:
        pictures: The pictures, row by row.
        title: A line of text.
        legend: Colours and what each of them means.
        columns: Pictures in a row.

    >>> contact_sheet([Image.new("RGB", (64, 64))] * 3, title="digits", legend=[("red", "true")], columns=2).size
    (152, 220)
    """
    grid = to_pil_image(make_grid([pil_to_tensor(one) for one in pictures], columns, padding=GAP, pad_value=GROUND))
    inset = GAP if len(pictures) == 1 else 0  # make_grid puts no padding around a single picture
    font, small = ImageFont.load_default(18), ImageFont.load_default(15)
    texts = sum(56 + small.getlength(text) for _, text in legend)
    width = max(grid.width + 2 * inset, math.ceil(max(font.getlength(title), texts)) + 2 * GAP)
    sheet = Image.new("RGB", (width, 2 * BAR + grid.height + 2 * inset), (GROUND,) * 3)
    sheet.paste(grid, (inset, 2 * BAR + inset))
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), title, fill=INK, font=font)
    x = float(GAP)
    for colour, text in legend:
        draw.rectangle((x, BAR + 8, x + 18, BAR + 22), outline=colour, width=4)
        draw.text((x + 26, BAR + 6), text, fill=INK, font=small)
        x += 56 + small.getlength(text)
    return sheet

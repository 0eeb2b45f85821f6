"""Render matplotlib figures as PNG files and pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from coordconv_apps.utils.fonts import dejavu, escape_missing, find_font

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_png(figure: Figure, dpi: float = 150) -> bytes:
    """Return a figure as the content of a PNG file; its texts may have characters of any script."""
    _set_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_picture(figure: Figure, dpi: float = 150) -> Image.Image:
    """Return a figure as a picture, for `coordconv_apps.training.pictures.Pictures`."""
    return Image.open(io.BytesIO(as_png(figure, dpi))).convert("RGB")


def _set_fonts(figure: Figure) -> None:
    """Make all texts readable, and choose fonts that have their characters."""
    from matplotlib.text import Text

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(escape_missing(label) != label for label in labels):
            axis.set_ticks(axis.get_ticklocs(), [escape_missing(label) for label in labels])
    for text in figure.findobj(Text):
        content = escape_missing(text.get_text())
        text.set_text(content)
        if not content.isascii() and (font := find_font(content)) != dejavu():  # matplotlib's own
            properties = text.get_fontproperties().copy()
            properties.set_file(font)
            text.set_fontproperties(properties)

"""Render matplotlib figures as PNG files and pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_png(figure: Figure, dpi: float = 150) -> bytes:
    """Return a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_picture(figure: Figure, dpi: float = 150) -> Image.Image:
    """Return a figure as a picture, for `coordconv_apps.training.pictures.Pictures`."""
    return Image.open(io.BytesIO(as_png(figure, dpi))).convert("RGB")

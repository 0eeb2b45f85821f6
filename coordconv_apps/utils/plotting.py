"""Figures as files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_png(figure: Figure, dpi: float = 150) -> bytes:
    """The content of a PNG file.

    Args:
        figure: What to draw.
        dpi: Pixels per inch of its size.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_picture(figure: Figure, dpi: float = 150) -> Image.Image:
    """A picture in memory, as `coordconv_apps.training.pictures.Pictures` takes it.

    Args:
        figure: What to draw.
        dpi: Pixels per inch of its size.
    """
    return Image.open(io.BytesIO(as_png(figure, dpi))).convert("RGB")

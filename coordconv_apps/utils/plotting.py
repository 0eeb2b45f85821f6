"""Render matplotlib figures as PNG files, pictures, and SVG elements of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from coordconv_apps.utils.fonts import dejavu, escape_missing, find_font

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DPI = 110
"""Resolution of the pictures of a run."""


def new_figure(title: str, width: float, height: float, title_size: float = 14) -> Figure:
    """Return an empty figure for a picture of a run, of ``width`` by ``height`` inches."""
    # Imported here, because the import takes a second and an error in the arguments should be reported at once.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=title_size)
    return figure


def as_png(figure: Figure, dpi: float = 150) -> bytes:
    """Return a figure as the content of a PNG file; its texts may have characters of any script."""
    _set_fonts(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_picture(figure: Figure, dpi: float = DPI) -> Image.Image:
    """Return a figure as a picture, for `coordconv_apps.training.pictures.Pictures`."""
    return Image.open(io.BytesIO(as_png(figure, dpi))).convert("RGB")


def as_svg(figure: Figure, name: str, label: str, colours: Mapping[str, str]) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page; its texts stay texts, in the page's font.

    Args:
        figure: The figure; its background becomes transparent.
        name: Begins the ids within the element, which must not occur twice on a page.
        label: The element's accessible name, as the ``alt`` of an image.
        colours: CSS colours, such as ``var(--ink)``, by the matplotlib colour that they replace, as ``#rrggbb``.
    """
    from matplotlib import rc_context

    _set_fonts(figure)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without the XML declaration and document type, which HTML does not have
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)  # for the whole page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, css in colours.items():
        text = re.sub(colour, css, text, flags=re.IGNORECASE)
    size = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{escape(label)}" {size[0] if size else ""} xmlns="http://www.w3.org/2000/svg" '
    return head + 'xmlns:xlink="http://www.w3.org/1999/xlink">' + text[text.index(">") + 1 :].strip()


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

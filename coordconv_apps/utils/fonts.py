"""Fonts for texts in pictures: names may have characters of any script, and no font has all of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from coordconv_apps.utils.errors import printable

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont


def readable(text: str) -> str:
    r"""Return a text with escapes for the characters that its font (`find_font`) lacks or that cannot be printed.

    >>> readable("Größe \U000f0000")
    'Größe \\U000f0000'
    """
    return escape_missing(printable(text))


def escape_missing(text: str) -> str:
    """Return a text, of one or several lines, with escapes for the characters that its font (`find_font`) lacks."""
    if text.isascii():
        return text
    font = _open(find_font(text))
    shown = "".join(c if _has(font, c) else c.encode("unicode_escape").decode() for c in text)
    return shown if shown == text else escape_missing(shown)  # without these characters, another font may be better


@cache
def find_font(text: str) -> str:
    """Return the file of the font that has the most characters of a text: DejaVu Sans, or an installed font."""
    best, most = dejavu(), sum(_has(_open(dejavu()), c) for c in text)
    if most < len(text):
        for path in _installed_fonts():
            if (count := sum(_has(_open(path), c) for c in text)) > most:
                best, most = path, count
    return best


def pillow_font(text: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font for drawing a `readable` text with Pillow, whose own font has hardly more than ASCII."""
    from PIL import ImageFont

    return ImageFont.load_default(size) if text.isascii() else ImageFont.truetype(find_font(text), size)


@cache
def dejavu() -> str:
    """Return the file of matplotlib's own font."""
    from matplotlib import get_data_path  # here: importing matplotlib takes a second, which ASCII texts do without

    return str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _installed_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import findSystemFonts

    return tuple(sorted(findSystemFonts()))


@cache
def _open(path: str) -> FT2Font | None:
    """Open a font; return None if it cannot be opened or has fixed sizes, as fonts of coloured symbols have."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError, ValueError):
        return None
    return font if font.scalable else None


def _has(font: FT2Font | None, character: str) -> bool:
    return character == "\n" or (font is not None and font.get_char_index(ord(character)) > 0)

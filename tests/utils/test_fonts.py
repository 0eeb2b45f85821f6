"""Fonts are chosen by the characters of a text, and characters that no font has are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]  # it has none
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]  # it has none
from matplotlib.figure import Figure

from coordconv_apps.utils import fonts
from coordconv_apps.utils.fonts import dejavu, find_font, pillow_font, readable
from coordconv_apps.utils.plotting import as_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

JAPAN = "\u65e5\u672c"


def make_font(path: Path, characters: str) -> str:
    """A font of black squares."""
    names = [".notdef", *(f"c{ord(c)}" for c in characters)]
    pen = TTGlyphPen(None)
    for corner in ((0, 0), (0, 1000), (1000, 1000), (1000, 0)):
        (pen.lineTo if corner != (0, 0) else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"c{ord(c)}" for c in characters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Fonts that are installed, none at first and one that is damaged."""
    broken = tmp_path / "broken.ttf"
    broken.write_text("no font")
    paths = [str(broken)]
    monkeypatch.setattr(fonts, "_installed_fonts", lambda: tuple(paths))
    find_font.cache_clear()
    yield paths
    find_font.cache_clear()


def test_fonts_that_have_the_characters_are_found(installed: list[str], tmp_path: Path) -> None:
    assert readable(JAPAN) == r"\u65e5\u672c"
    find_font.cache_clear()
    installed += [make_font(tmp_path / "one.ttf", JAPAN[0]), make_font(tmp_path / "both.ttf", JAPAN)]
    assert find_font("Größe, кот") == dejavu()
    assert find_font(JAPAN) == installed[-1]
    assert readable(JAPAN) == JAPAN
    assert pillow_font(JAPAN, 20).getlength(JAPAN) == 40
    assert pillow_font("a", 20).getlength("a") < 20


@pytest.mark.parametrize("text", ["plain", "a\nb", "\udcff", "é ß", "кот", "\U000f0000"])
def test_readable_texts_stay_as_they_are(text: str) -> None:
    assert readable(readable(text)) == readable(text)
    assert readable(text).isprintable()


@pytest.mark.parametrize("has_font", [False, True])
def test_figures_have_texts_of_any_script_without_warnings(
    has_font: bool, installed: list[str], tmp_path: Path
) -> None:
    if has_font:
        installed.append(make_font(tmp_path / "both.ttf", JAPAN))

    def draw(name: str) -> np.ndarray:
        figure = Figure(figsize=(2, 2), layout="constrained")
        axes = figure.subplots()
        axes.set(title=f"{name}\nsecond line", xlabel=name)
        axes.set_xticks([0, 1], [name, "\udcff"])
        return np.asarray(as_picture(figure, 50))

    assert not np.array_equal(draw(JAPAN), draw("\u65e5\u5143"))
    assert not np.array_equal(draw("\u00e9"), draw("\u00e8"))

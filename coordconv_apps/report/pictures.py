"""Pictures within a page: scaled and compressed, so that the size of a page is bounded."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

WIDEST = 1100
"""Largest width in pixels; wider pictures are scaled down."""

TALLEST = 2200
"""Largest height in pixels; taller pictures are scaled down."""

MOST_BYTES = 300_000
"""Largest size of an embedded file; larger pictures are compressed with losses."""

MOST_PICTURES = 8
"""Largest number of pictures on a page; further ones are mentioned only."""


class Embedded(NamedTuple):
    """A picture for an ``<img>``: its data URI, and its width and height in pixels."""

    source: str
    width: int
    height: int


def embed(content: bytes | Path) -> Embedded:
    """Return a PNG file, or its content, as a data URI.

    A picture within the limits stays as it is. Others are scaled to at most `WIDEST` x `TALLEST` pixels and compressed
    with losses.

    Raises:
        OSError: The file cannot be read, or is no PNG file.
    """
    data = content if isinstance(content, bytes) else content.read_bytes()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        width, height = picture.size
        kind = "png"
        if width > WIDEST or height > TALLEST or len(data) > MOST_BYTES:
            shown = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
            shown.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
            (width, height), data, kind = shown.size, _lossy(shown), "webp"
        else:
            picture.load()  # a truncated file is no picture
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height)


def _lossy(picture: Image.Image) -> bytes:
    """Return a WebP file of at most `MOST_BYTES`, or of the lowest quality that is still readable."""
    content = b""
    for quality in (85, 60, 35):
        buffer = io.BytesIO()
        picture.save(buffer, format="WEBP", quality=quality)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content


def find_pictures(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the pictures of a run by name; those of an earlier folder replace those of a later one."""
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / "pictures").glob("*.png")):
            found.setdefault(file.stem, file)
    return found


class Panel(NamedTuple):
    """Pictures of one name side by side."""

    name: str
    pictures: list[tuple[str, Embedded]]  # caption and picture


def side_by_side(
    by_caption: Mapping[str, Mapping[str, Path]], most: int = MOST_PICTURES
) -> tuple[list[Panel], list[str]]:
    """Return the pictures that all runs have, by name, and the names that are left out: too many, or unreadable.

    Args:
        by_caption: The pictures of each run by name, by the run's caption.
        most: Number of names to show.
    """
    runs = list(by_caption.values())
    shown: list[Panel] = []
    omitted: list[str] = []
    for name in (name for name in (runs[0] if runs else ()) if all(name in run for run in runs)):
        try:
            if len(shown) < most:
                shown.append(Panel(name, [(caption, embed(run[name])) for caption, run in by_caption.items()]))
                continue
        except OSError:  # no picture
            pass
        omitted.append(name)
    return shown, omitted

"""What a stranger could hide in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import EpsImagePlugin

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
"""A program in PostScript, which Pillow gives to Ghostscript."""

_FIELDS = [(3, 60, b"\x01\x00"), (3, 20, b"\x08"), (3, 30, b"\x08"), (3, 120, b"\x05"), (8, 10, EPS)]
IPTC = b"".join(bytes([0x1C, *tag]) + len(value).to_bytes(2, "big") + value for *tag, value in _FIELDS)
"""An image of 8 x 8 pixels that contains an EPS."""


def forbid_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Pillow fail where it would run Ghostscript."""

    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript runs")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)

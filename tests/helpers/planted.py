"""What a stranger could hide in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)

"""Images in tests."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image


def colour_of(image: torch.Tensor) -> list[int]:
    """Return the one colour of an image, uint8 ``(C, H, W)``."""
    assert image.dtype == torch.uint8
    (colour,) = image.flatten(1).unique(dim=1).T.tolist()
    return list(colour)


def damage(path: Path) -> None:
    """Leave an image file's head alone, so that it can be opened and not be read."""
    Image.effect_noise((40, 40), 100).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:300])

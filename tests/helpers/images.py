"""Images in tests."""

from __future__ import annotations

import torch


def colour_of(image: torch.Tensor) -> list[int]:
    """Return the one colour of an image, uint8 ``(C, H, W)``."""
    assert image.dtype == torch.uint8
    (colour,) = image.flatten(1).unique(dim=1).T.tolist()
    return list(colour)

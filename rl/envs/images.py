"""Shapes of image observations: the smallest allowed, and which axis holds the channels."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

SMALLEST_IMAGE = 36
"""Smallest height and width for NatureCNN: from its last layer, 1 + 2 = 3, 2 (3 - 1) + 4 = 8, 4 (8 - 1) + 8 = 36."""


def is_channels_last(images: spaces.Box) -> bool:
    """Return whether images have their channels last.

    An axis that is too short for height or width holds the channels. A stack of frames may have more channels than
    rows, which Stable-Baselines3's rule, the shortest axis, takes for channels; two equal axes side by side are height
    and width then. Other large images have been transposed by Stable-Baselines3 where it holds them for channels last.

    >>> is_channels_last(spaces.Box(0, 255, (210, 160, 3), np.uint8))
    True
    >>> [is_channels_last(spaces.Box(0, 255, shape, np.uint8)) for shape in ((40, 40, 48), (48, 40, 40))]
    [True, False]
    """
    first, second, third = images.shape
    if min(images.shape) < SMALLEST_IMAGE:
        return int(np.argmin(images.shape)) == 2
    return first == second != third


def has_unclear_channels(images: spaces.Box) -> bool:
    """Return whether the channels lie between two equal axes: Stable-Baselines3 has transposed a square stack."""
    first, second, third = images.shape
    return min(images.shape) >= SMALLEST_IMAGE and first == third != second

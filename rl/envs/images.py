"""Image observations: the smallest allowed, which axis holds the channels, and floating-point images as bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from numpy.typing import NDArray

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


def as_bytes(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Scale floating-point images from the bounds of their space to uint8, 0 to 255; leave other observations alone.

    Images are arrays of three axes whose pixels all have the same finite bounds.
    """
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or not np.issubdtype(space.dtype, np.floating):
        return env
    low, high = float(space.low.min()), float(space.high.max())
    if not np.isfinite([low, high]).all() or low == high or (space.low != low).any() or (space.high != high).any():
        return env
    scale = partial(_scale, low=low, high=high)
    return TransformObservation(env, scale, spaces.Box(0, 255, space.shape, np.uint8))


def _scale(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    return np.round((image.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)

"""Image observations: the smallest allowed, which axis holds the channels, and images as policies take them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import is_image_space

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


def is_bounded(images: spaces.Space[Any]) -> bool:
    """Return whether this is a space of floating-point images: three axes, and the same finite bounds for all pixels.

    >>> is_bounded(spaces.Box(-1, 1, (36, 36, 3))), is_bounded(spaces.Box(-np.inf, np.inf, (36, 36, 3)))
    (True, False)
    """
    if not (isinstance(images, spaces.Box) and len(images.shape) == 3 and np.issubdtype(images.dtype, np.floating)):
        return False
    low, high = float(images.low.min()), float(images.high.max())
    return bool(
        np.isfinite([low, high]).all() and low != high and (images.low == low).all() and (images.high == high).all()
    )


def is_large(images: spaces.Box) -> bool:
    """Return whether two of three axes are long enough for the height and width of an image."""
    return len(images.shape) == 3 and sorted(images.shape)[1] >= SMALLEST_IMAGE


def prepare_observations(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Convert observations to what policies take: images with their channels first, and arrays of their data type.

    Floating-point images (`is_bounded`) are scaled from the bounds of their space to uint8, 0 to 255. In a Dict, a
    small array of three axes is a vector, as in Stable-Baselines3.
    """
    space = env.observation_space
    if not isinstance(space, spaces.Dict):
        prepared = _prepare(space, is_bounded(space))
        return TransformObservation(env, prepared.convert, prepared.space)
    parts = {
        key: _prepare(part, is_bounded(part) and is_large(cast("spaces.Box", part)))
        for key, part in space.spaces.items()
    }
    return TransformObservation(
        env,
        lambda seen: {key: part.convert(seen[key]) for key, part in parts.items()},
        spaces.Dict([(key, part.space) for key, part in parts.items()]),  # of a dict, it would sort the keys
    )


class _Prepared(NamedTuple):
    """The space of a part of an observation after its conversion, and the conversion."""

    space: spaces.Space[Any]
    convert: Callable[[Any], NDArray[Any]]


def _prepare(space: spaces.Space[Any], is_scaled: bool) -> _Prepared:
    prepared = _Prepared(space, partial(np.asarray, dtype=space.dtype))
    if is_scaled:
        images = cast("spaces.Box", space)
        low, high = float(images.low.min()), float(images.high.max())
        prepared = _Prepared(spaces.Box(0, 255, images.shape, np.uint8), partial(_scale, low=low, high=high))
    if is_image_space(cast("spaces.Box", prepared.space)) and is_channels_last(cast("spaces.Box", prepared.space)):
        height, width, channels = cast("spaces.Box", space).shape
        first = spaces.Box(0, 255, (channels, height, width), np.uint8)
        return _Prepared(first, lambda image: prepared.convert(image).transpose(2, 0, 1))
    return prepared


def _scale(image: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if not np.isfinite(image).all():  # uint8 has no NaN that a later check could find
        raise ValueError("an image is NaN or infinite")
    return np.round((image.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)

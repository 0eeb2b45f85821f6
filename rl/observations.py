"""Functions that take all observations alike: one tensor, or for a Dict space a dict with a tensor for each part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

Parts: TypeAlias = T | dict[str, T]
"""One value, or one for each part of a Dict observation."""
Observations: TypeAlias = Parts[Tensor]
"""Observations: a tensor of images, or a tensor for each part of a Dict."""


def map_parts(function: Callable[..., T], *values: Any) -> Parts[T]:  # noqa: ANN401  # arrays, tensors or spaces, or dicts
    """Apply a function to observations, or to each part of Dict observations, in the order of the first dict.

    >>> map_parts(lambda one, other: one + other, {"image": 1, "speed": 2}, {"speed": 20, "image": 10})
    {'image': 11, 'speed': 22}
    >>> map_parts(len, [7, 8, 9])
    3
    """
    first = values[0]
    if isinstance(first, dict):
        return {key: function(*(value[key] for value in values)) for key in first}
    return function(*values)


def stack_observations(observations: Sequence[Any]) -> Any:  # noqa: ANN401  # arrays, or dicts of them
    """Stack observations of single environments: an array ``(B, ...)``, or a dict of such arrays.

    >>> stack_observations([{"speed": 1.5}, {"speed": 2.0}])
    {'speed': array([1.5, 2. ])}
    """
    return map_parts(lambda *parts: np.stack(parts), *observations)


def observation_at(observations: Any, index: int) -> Any:  # noqa: ANN401  # an array, or a dict of them
    """Return one observation of a batch, without the batch axis."""
    return map_parts(lambda part: part[index], observations)


def empty_observations(leading: tuple[int, ...], space: spaces.Space[Any], device: torch.device) -> Observations:
    """Return tensors of zeros for observations of a space, ``(*leading, *shape)`` of each part.

    Images lie in memory with their channels last, in the usual order of axes: on a CPU, gradients of a first
    convolution with few channels then take a third of the time.

    Args:
        leading: Axes before those of an observation.
        space: Space of the observations.
        device: Device of the tensors.
    """

    def allocate(part: spaces.Space[Any]) -> Tensor:
        assert part.shape is not None
        dtype = torch.from_numpy(np.zeros(0, part.dtype)).dtype
        if len(part.shape) != 3:
            return torch.zeros(*leading, *part.shape, dtype=dtype, device=device)
        channels, height, width = part.shape
        return torch.zeros(*leading, height, width, channels, dtype=dtype, device=device).movedim(-1, -3)

    return map_parts(allocate, dict(space.spaces) if isinstance(space, spaces.Dict) else space)


def select_observations(observations: Observations, samples: Tensor) -> Observations:
    """Return some observations ``(len(samples), ...)`` of ``(N, ...)``, with images in the same layout.

    Args:
        observations: Tensors as of `empty_observations`, ``(N, ...)``.
        samples: Indices, int64.
    """

    def select(part: Tensor) -> Tensor:
        if part.ndim != 4:
            return part.index_select(0, samples)
        return part.permute(0, 2, 3, 1).index_select(0, samples).permute(0, 3, 1, 2)  # each image in one piece

    return map_parts(select, observations)

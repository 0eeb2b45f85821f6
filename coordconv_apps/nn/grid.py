"""`Coordinates`: which coordinates a layer sees, and the grid of their values, of a whole image or a window of one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

AXES = "xyz"
"""Names of the coordinate axes: x belongs to the last axis of a tensor, y to the one before, z to the third last."""


class Window(NamedTuple):
    """The place of a grid within a larger one, in positions of that grid, outermost axis first.

    ``origin`` and ``size`` (of the larger grid) hold one number per axis, or are tensors ``(N, axes)`` that hold the
    windows of N samples; N is 1 if all samples share one window.
    """

    origin: tuple[float, ...] | Tensor
    size: tuple[float, ...] | Tensor


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Choose the coordinates of a layer, where a short name such as ``"xy"`` or ``"y"`` does not suffice.

    Layers and `to_coordconv` take such an object as ``coords``, or a dictionary of its fields, as configuration files
    hold it. The ``coords`` of the applications is ``"none"``, ``"xy"`` or ``"xyr"``.

    Args:
        channels: Letters of ``"xyzr"`` in this order, such as ``"y"`` or ``"xyr"``. x runs along the last axis, y along
            the one before it, z along the third last; r is the distance from the centre over all axes.
        range: Smallest and largest coordinate of an axis. r is measured in the same unit.
        align_corners: As in `torch.nn.functional.interpolate`: True puts the first and last pixel's centres at the
            ends of the range, as in the paper; False the image's outer edges, so that the first pixel has the
            coordinate -1 + 1 / size.
        function: Computes the channels from those above, at every position alone. It takes a tensor ``(C, ...)`` and
            returns ``(K, ...)``; the number and sizes of the other axes differ between calls.

    Raises:
        ValueError: If a field is none of these.

    Example:
        >>> Coordinates("y", range=(0, 1)).grid((3, 2))
        tensor([[[0.0000, 0.0000],
                 [0.5000, 0.5000],
                 [1.0000, 1.0000]]])
        >>> def polar(grid):
        ...     x, y = grid
        ...     return torch.stack([(x.square() + y.square()).sqrt(), torch.atan2(y, x)])
        >>> Coordinates("xy", function=polar).grid((3, 2)).shape
        torch.Size([2, 3, 2])
        >>> Coordinates("y", range=(0, 1)).as_dict()
        {'channels': 'y', 'range': [0.0, 1.0], 'align_corners': True}
    """

    channels: str = "xy"
    range: tuple[float, float] = (-1.0, 1.0)
    align_corners: bool = True
    function: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        allowed = AXES + "r"
        given = self.channels if isinstance(self.channels, str) else ""
        if not given or "".join(c for c in allowed if c in given) != given:
            raise ValueError(f"channels={self.channels!r} must be letters of {allowed!r}, each once and in this order")
        try:
            low, high = (float(end) for end in self.range)
        except (TypeError, ValueError):
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"range={self.range!r} must be two finite numbers, the smaller one first, such as (0, 1)")
        object.__setattr__(self, "range", (low, high))
        if not isinstance(self.align_corners, bool):
            raise ValueError(f"align_corners={self.align_corners!r} must be True or False")
        if not (self.function is None or callable(self.function)):
            raise ValueError(f"function={self.function!r} must be a function of the grid, or None")

    def only(self, axis: str) -> Coordinates:
        """Return the same coordinates of one axis, ``"x"``, ``"y"`` or ``"z"``."""
        return Coordinates(axis, self.range, self.align_corners)

    @property
    def least_ndim(self) -> int:
        """Number of spatial axes that the channels need at least."""
        return max((AXES.index(c) + 1 for c in self.channels if c != "r"), default=1)

    def count(self, ndim: int) -> int:
        """Return the number of coordinate channels over ``ndim`` axes.

        Raises:
            ValueError: If there is no such axis, or the function does not return ``(K, ...)``.
        """
        if self.least_ndim > ndim:
            raise ValueError(f"channels={self.channels!r} needs {self.least_ndim} spatial axes; the layer has {ndim}")
        if self.function is None:
            return len(self.channels)
        with torch.device("cpu"), torch.no_grad():
            return self.grid((3, 2, 4)[:ndim], dtype=torch.float32).shape[0]

    def grid(
        self, size: Sequence[int], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Return the channels of a canvas, ``(C, *size)``, in their order.

        Args:
            size: Spatial size, outermost axis first: ``(W,)``, ``(H, W)`` or ``(D, H, W)``.
            dtype: Floating-point (or complex) type of the result; torch's default if None.
            device: Device of the result; torch's default if None.

        Raises:
            ValueError: If ``size`` lacks an axis of the channels, or has more than three.
            TypeError: If ``dtype`` is an integer type.
        """
        if not self.least_ndim <= len(size) <= len(AXES):
            raise ValueError(
                f"size={tuple(size)!r} has {len(size)} axes; channels={self.channels!r} take {self.least_ndim} to"
                f" {len(AXES)}"
            )
        return self.sample(size, dtype=dtype, device=device)[0]

    def sample(
        self,
        size: Sequence[int],
        *,
        window: Window | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return the channels as a batch ``(N, C, *size)``: one sample, or one per window.

        The result is not a view: torch's inductor (2.14) fails on a view of symbolic size that is saved for the
        backward.
        """
        needed = AXES[: len(size)] if "r" in self.channels else self.channels
        axes = {name: self._axis(size, AXES.index(name) + 1, window, dtype, device) for name in needed}
        low, high = self.range
        half, centre = (high - low) / 2, (high + low) / 2
        plain = half == 1 and centre == 0
        channels = []
        for name in self.channels:
            if name == "r":
                radius = torch.stack(list(axes.values())).square().sum(0).sqrt()
                channels.append(radius if plain else radius * half)
            else:
                axis = axes[name]
                channels.append(axis if plain else axis * half + centre)
        grid = torch.cat(channels, dim=1)
        return grid if self.function is None else self._apply(self.function, grid)

    def _axis(
        self,
        size: Sequence[int],
        back: int,
        window: Window | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """Return the coordinate along the axis ``-back`` in [-1, 1] at every position, ``(N, 1, *size)``."""
        axis = axis_in_window(window, -back, size[-back], self.align_corners, dtype, device)
        return axis.reshape([-1, 1, *[1] * (len(size) - back), size[-back], *[1] * (back - 1)]).expand(-1, 1, *size)

    def _apply(self, function: Callable[[Tensor], Tensor], grid: Tensor) -> Tensor:
        """Return the user's channels of a batch of grids."""
        made = function(grid.movedim(1, 0))
        if not isinstance(made, Tensor) or made.dim() != grid.dim() or made.shape[1:] != grid.movedim(1, 0).shape[1:]:
            returned = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            expected = (grid.shape[1], grid.shape[0], *grid.shape[2:])
            raise ValueError(
                f"function={getattr(function, '__name__', function)} returned {returned} for a tensor of shape"
                f" {expected}; it must return (K, {', '.join(map(str, expected[1:]))})"
            )
        return made.movedim(0, 1).to(grid.dtype).contiguous()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for configuration files and checkpoints: ``Coordinates(**fields)``.

        Raises:
            ValueError: If there is a function, which is no plain value.
        """
        if self.function is not None:
            raise ValueError(
                f"function={getattr(self.function, '__name__', self.function)} is not a plain value; save the other"
                " fields and pass the function again: Coordinates(**fields, function=...)"
            )
        return {"channels": self.channels, "range": list(self.range), "align_corners": self.align_corners}


def axis_in_window(
    window: Window | None,
    axis: int,
    size: int,
    align_corners: bool,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    """Return the coordinates along one axis of a window, ``(size,)`` or one row per window, in [-1, 1] of the whole."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"dtype={dtype} cannot hold coordinates in [-1, 1]; a floating-point type is needed")
    # Half precision cannot represent all positions of a long axis: divide in single precision, then round once.
    precise = torch.promote_types(dtype, torch.float32)
    doubled = 2 * torch.arange(size, device=device)
    if window is None:
        # Integers up to the last step: exact, symmetric about 0, and right for size 1 without a branch.
        return ((doubled - (size - 1)).to(precise) / (max(size - 1, 1) if align_corners else size)).to(dtype)
    origin, whole = window
    if isinstance(origin, Tensor) or isinstance(whole, Tensor):
        # The same operations on numbers that single precision represents: equal to the whole grid bit by bit.
        first, length = (
            torch.as_tensor(value, device=device).to(precise)[..., axis].reshape(-1, 1) for value in window
        )
        position = doubled.to(precise) + (2 * first - (length - 1))
        return (position / ((length - 1).clamp(min=1) if align_corners else length)).to(dtype)
    steps = max(whole[axis] - 1, 1) if align_corners else whole[axis]
    return ((doubled + (2 * origin[axis] - (whole[axis] - 1))).to(precise) / steps).to(dtype)

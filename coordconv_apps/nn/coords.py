"""Coordinate grids: the only place that defines axis order, range, the radius and axes of size 1.

The convention is that of Liu et al. (2018), section 3: every axis runs over [-1, 1], the first coordinate is
x (along the last axis of a tensor, an image's columns), then y (rows), then z (depth), then optionally r, the
distance from the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from coordconv_apps.nn.functional import CHANNELS_LAST, is_channels_last

Coords = Literal["none", "xy", "xyr"]
"""The switch of every application: no coordinates, x and y, or x, y and the radius."""

AXES = "xyz"
"""Names of the coordinate axes: x belongs to the last axis of a tensor, y to the one before, z to the third last."""


def coord_channels(coords: str, ndim: int) -> int:
    """Return the number of coordinate channels of ``coords``: a letter of ``"xyz"`` per axis, optionally ``"r"``.

    Raises:
        ValueError: If ``coords`` is not a specification for ``ndim`` axes (1 to 3).

    Example:
        >>> coord_channels("xyr", ndim=2)
        3
    """
    axes = AXES[:ndim]
    if coords not in (axes, axes + "r"):
        raise ValueError(f"coords={coords!r} is not one of {axes!r}, {axes + 'r'!r} ({ndim} spatial axes)")
    return len(coords)


def coords_for(coords: str, ndim: int) -> str:
    """Translate ``"xy"`` or ``"xyr"``, which are written for images, to another number of axes (1 to 3).

    A specification for ``ndim`` axes is returned as it is; anything else raises a ValueError.

    Example:
        >>> coords_for("xyr", ndim=3)
        'xyzr'
    """
    axes = AXES[:ndim]
    translated = {"xy": axes, "xyr": axes + "r", axes: axes, axes + "r": axes + "r"}
    if coords not in translated:
        raise ValueError(f"coords={coords!r} is not one of 'xy', 'xyr'")
    return translated[coords]


def axis_coords(size: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """Return the coordinates along one axis: evenly spaced, with the first and last exactly -1 and 1.

    Args:
        size: Number of positions. The only position of an axis of size 1 has the coordinate 0.
        dtype: Floating-point (or complex) type of the result; torch's default if None.
        device: Device of the result; torch's default if None.

    Raises:
        TypeError: If ``dtype`` is an integer type.

    Example:
        >>> axis_coords(5)
        tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000])
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"dtype={dtype} cannot hold coordinates in [-1, 1]; a floating-point type is needed")
    # Integers up to the last step: exact, symmetric about 0, and right for size 1 without a branch.
    position = 2 * torch.arange(size, device=device) - (size - 1)
    # Half precision cannot represent all positions of a long axis: divide in single precision, then round once.
    return (position.to(torch.promote_types(dtype, torch.float32)) / max(size - 1, 1)).to(dtype)


def coord_grid(
    size: Sequence[int], *, r: bool = False, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Return the coordinate channels of a canvas (Liu et al., 2018, section 3).

    Args:
        size: Spatial size, outermost axis first: ``(W,)``, ``(H, W)`` or ``(D, H, W)``.
        r: Append the distance from the centre, ``sqrt(x^2 + y^2)`` of the scaled axes, in [0, sqrt(len(size))].
        dtype: Floating-point (or complex) type of the result; torch's default if None.
        device: Device of the result; torch's default if None.

    Returns:
        Tensor of shape ``(C, *size)``: x, y, z (as many as there are axes), then r. x varies along the last axis.

    Raises:
        ValueError: If ``size`` has no axis or more than three.
        TypeError: If ``dtype`` is an integer type.

    Example:
        >>> coord_grid((2, 3))
        tensor([[[-1.,  0.,  1.],
                 [-1.,  0.,  1.]],
        <BLANKLINE>
                [[-1., -1., -1.],
                 [ 1.,  1.,  1.]]])
    """
    return coord_sample(size, r=r, dtype=dtype, device=device)[0]


def coord_sample(
    size: Sequence[int], *, r: bool = False, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Return the channels of `coord_grid` as a batch of one sample, of shape ``(1, C, *size)``.

    The result is not a view: torch's inductor (2.14) fails on a view of symbolic size that is saved for the backward.
    """
    ndim = len(size)
    if not 1 <= ndim <= len(AXES):
        raise ValueError(f"size={tuple(size)!r} has {ndim} axes; 1 to {len(AXES)} are allowed")
    channels = []
    for back in range(1, ndim + 1):  # x is the last axis, y the one before it, z the third last
        axis = axis_coords(size[-back], dtype=dtype, device=device)
        channels.append(axis.reshape([-1] + [1] * (back - 1)).expand(1, 1, *size))
    if r:
        channels.append(torch.stack(channels).square().sum(0).sqrt())
    return torch.cat(channels, dim=1)


def add_coords(input: Tensor, coords: str) -> Tensor:
    """Concatenate coordinate channels to ``(B, C, *size)`` or ``(C, *size)``, as `AddCoords` does.

    Example:
        >>> add_coords(torch.zeros(8, 16, 32, 32), "xyr").shape
        torch.Size([8, 19, 32, 32])
    """
    ndim = len(coords.removesuffix("r"))
    if input.dim() not in (ndim + 1, ndim + 2):
        raise ValueError(
            f"input has {input.dim()} axes; coords={coords!r} needs (C, *size) or (B, C, *size) "
            f"with {ndim} spatial axes"
        )
    size = tuple(input.shape[-ndim:])
    grid = coord_grid(size, r=coords.endswith("r"), dtype=input.dtype, device=input.device)
    grid = grid.expand(*input.shape[: -ndim - 1], *grid.shape)
    if input.dim() == ndim + 2 and is_channels_last(input):  # torch.cat keeps a memory format that all inputs have
        grid = grid.contiguous(memory_format=CHANNELS_LAST[input.dim()])
    return torch.cat([input, grid], dim=-ndim - 1)


class AddCoords(nn.Module):
    """Concatenate coordinate channels to the input, as the paper draws it (Liu et al., 2018, figure 3).

    For networks that need the coordinates themselves; a convolution right after it is cheaper as a CoordConv layer.

    Args:
        coords: ``"x"``, ``"xy"`` or ``"xyz"``, as many as the input has spatial axes, optionally followed by ``"r"``.

    Shape:
        Input ``(B, C, *size)`` or ``(C, *size)``; output with ``C + len(coords)`` channels, the coordinates last,
        in the input's memory format.

    Raises:
        ValueError: If ``coords`` is none of these, or the input has another number of axes.

    Example:
        >>> AddCoords("x")(torch.zeros(1, 5))
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000,  0.0000],
                [-1.0000, -0.5000,  0.0000,  0.5000,  1.0000]])
    """

    def __init__(self, coords: str = "xy") -> None:
        super().__init__()
        if coords.removesuffix("r") not in ("x", "xy", "xyz"):
            raise ValueError(f"coords={coords!r} is not one of 'x', 'xy', 'xyz', each optionally followed by 'r'")
        self.ndim = len(coords.removesuffix("r"))
        self.coords = coords

    def forward(self, input: Tensor) -> Tensor:
        """Append the coordinate channels."""
        return add_coords(input, self.coords)

    def extra_repr(self) -> str:
        """Return the coordinates."""
        return f"coords={self.coords!r}"

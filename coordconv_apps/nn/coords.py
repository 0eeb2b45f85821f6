"""Coordinate grids, with `coordconv_apps.nn.grid` the only place that defines axis order, range, radius and size 1.

The convention is that of Liu et al. (2018), section 3: every axis runs over [-1, 1], the first coordinate is
x (along the last axis of a tensor, an image's columns), then y (rows), then z (depth), then optionally r, the
distance from the centre. `Coordinates` names other choices.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from coordconv_apps.nn.grid import AXES, Coordinates, axis_in_window

Coords = Literal["none", "xy", "xyr"]
"""The switch of every application: no coordinates, x and y, or x, y and the radius."""

CoordsLike = str | Coordinates | Mapping[str, Any]
"""What arguments named ``coords`` take: a short name, `Coordinates`, or a dictionary of its fields."""

SHORT_NAMES = {
    "".join(letters): Coordinates("".join(letters))
    for count in range(1, len(AXES) + 2)
    for letters in itertools.combinations(AXES + "r", count)
}
"""The coordinates that have a short name: all that differ from the paper's at most in their channels."""


def as_coordinates(coords: CoordsLike) -> Coordinates:
    """Return the `Coordinates` of a short name, a dictionary of fields, or an object of that class.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(coords, Coordinates):
        return coords
    if isinstance(coords, str) and coords in SHORT_NAMES:
        return SHORT_NAMES[coords]
    if isinstance(coords, Mapping):
        names = [field.name for field in dataclasses.fields(Coordinates)]
        if unknown := [key for key in coords if key not in names]:
            raise ValueError(f"coords={dict(coords)!r}: {unknown[0]!r} is not one of {', '.join(map(repr, names))}")
        return Coordinates(**coords)
    raise ValueError(
        f"coords={coords!r} must be letters of 'xyzr', each once and in this order, such as 'xy'; a Coordinates object;"
        " or a dictionary of its fields"
    )


def layer_coords(coords: CoordsLike, ndim: int) -> str | Coordinates:
    """Return coordinates as a layer over ``ndim`` axes keeps them: the short name if there is one.

    Raises:
        ValueError: If ``coords`` is not a specification for ``ndim`` axes (1 to 3).

    Example:
        >>> layer_coords({"channels": "xy", "range": (-1, 1)}, ndim=2)
        'xy'
    """
    coordinates = as_coordinates(coords)
    if isinstance(coords, str) and coordinates.least_ndim > ndim:
        raise ValueError(
            f"coords={coords!r} needs {coordinates.least_ndim} spatial axes; with {ndim}, it must be letters of"
            f" {AXES[:ndim] + 'r'!r}"
        )
    coordinates.count(ndim)
    return coordinates.channels if coordinates == SHORT_NAMES[coordinates.channels] else coordinates


def coords_for(coords: CoordsLike, ndim: int) -> str | Coordinates:
    """Translate ``"xy"`` and ``"xyr"``, which name all axes of an image, to another number of axes (1 to 3).

    Other channels are returned as they are; those that ``ndim`` axes do not have raise a ValueError.

    Example:
        >>> coords_for("xyr", ndim=3)
        'xyzr'
        >>> coords_for("y", ndim=3)
        'y'
    """
    coordinates = as_coordinates(coords)
    axes = {"xy": AXES[:ndim], "xyr": AXES[:ndim] + "r"}
    if coordinates.channels not in axes:
        return layer_coords(coords, ndim)
    return layer_coords(dataclasses.replace(coordinates, channels=axes[coordinates.channels]), ndim)


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
    return axis_in_window(None, 0, size, True, dtype, device)


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
    ndim = len(size)
    if not 1 <= ndim <= len(AXES):
        raise ValueError(f"size={tuple(size)!r} has {ndim} axes; 1 to {len(AXES)} are allowed")
    return SHORT_NAMES[AXES[:ndim] + "r" * r].grid(size, dtype=dtype, device=device)

"""CoordConv for PyTorch: the layers, and the conversion of any model. These need torch and nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordconv_apps.nn.convert import coordconv_layers, to_coordconv
    from coordconv_apps.nn.coords import AddCoords, Coords, axis_coords, coord_grid
    from coordconv_apps.nn.fold import fold
    from coordconv_apps.nn.layers import (
        CoordConv1d,
        CoordConv2d,
        CoordConv3d,
        CoordConvTranspose1d,
        CoordConvTranspose2d,
        CoordConvTranspose3d,
    )

__version__ = "0.1.0"

__all__ = [
    "AddCoords",
    "CoordConv1d",
    "CoordConv2d",
    "CoordConv3d",
    "CoordConvTranspose1d",
    "CoordConvTranspose2d",
    "CoordConvTranspose3d",
    "Coords",
    "__version__",
    "axis_coords",
    "coord_grid",
    "coordconv_layers",
    "fold",
    "to_coordconv",
]

_MODULES = ("layers", "convert", "fold", "coords")


def __getattr__(name: str) -> object:
    """Import a public name, and torch with it, when it is first used: the help of a command needs neither."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(importlib.import_module(f"coordconv_apps.nn.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

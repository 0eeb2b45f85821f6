"""CoordConv for PyTorch: the layers, and the conversion of any model. These need torch and nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordconv_apps.nn.add_coords import AddCoords
    from coordconv_apps.nn.concatenated import ConcatenatedLayout, export_concatenated, import_concatenated
    from coordconv_apps.nn.convert import coordconv_layers, to_coordconv
    from coordconv_apps.nn.coords import Coords, axis_coords, coord_grid
    from coordconv_apps.nn.fold import fold
    from coordconv_apps.nn.grid import Coordinates
    from coordconv_apps.nn.layers import (
        CoordConv1d,
        CoordConv2d,
        CoordConv3d,
        CoordConvTranspose1d,
        CoordConvTranspose2d,
        CoordConvTranspose3d,
    )
    from coordconv_apps.nn.strides import measure_strides
    from coordconv_apps.nn.windows import WindowedModel, coord_window

__version__ = "0.1.0"

__all__ = [
    "AddCoords",
    "ConcatenatedLayout",
    "CoordConv1d",
    "CoordConv2d",
    "CoordConv3d",
    "CoordConvTranspose1d",
    "CoordConvTranspose2d",
    "CoordConvTranspose3d",
    "Coordinates",
    "Coords",
    "WindowedModel",
    "__version__",
    "axis_coords",
    "coord_grid",
    "coord_window",
    "coordconv_layers",
    "export_concatenated",
    "fold",
    "import_concatenated",
    "measure_strides",
    "to_coordconv",
]

_MODULES = ("layers", "convert", "fold", "coords", "grid", "add_coords", "windows", "strides", "concatenated")


def __getattr__(name: str) -> object:
    """Import a public name, and torch with it, when it is first used: the help of a command needs neither."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(importlib.import_module(f"coordconv_apps.nn.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""CoordConv for PyTorch: the layers, and the conversion of any model. These need torch and nothing else."""

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

__all__ = [
    "AddCoords",
    "CoordConv1d",
    "CoordConv2d",
    "CoordConv3d",
    "CoordConvTranspose1d",
    "CoordConvTranspose2d",
    "CoordConvTranspose3d",
    "Coords",
    "axis_coords",
    "coord_grid",
    "coordconv_layers",
    "fold",
    "to_coordconv",
]

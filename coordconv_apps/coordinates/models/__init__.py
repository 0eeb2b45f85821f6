"""The networks of the coordinate-transform tasks."""

from coordconv_apps.coordinates.models.builders import (
    PixelNetworkName,
    PositionNetworkName,
    build_pixel_network,
    build_regressor,
)
from coordconv_apps.coordinates.models.pixel_networks import GrowingNet, PixelClassifier, PixelRenderer
from coordconv_apps.coordinates.models.position_networks import ConvRegressor, PositionNet, StridedRegressor

__all__ = [
    "ConvRegressor",
    "GrowingNet",
    "PixelClassifier",
    "PixelNetworkName",
    "PixelRenderer",
    "PositionNet",
    "PositionNetworkName",
    "StridedRegressor",
    "build_pixel_network",
    "build_regressor",
]

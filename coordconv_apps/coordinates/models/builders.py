"""Build the networks of the coordinate-transform tasks by name (Liu et al., 2018, section 4 and supplement).

``paper`` is the paper's CoordConv network of each task, with coordinates where the paper has them. All others are
plain convolution networks; with coordinates, each of their convolutions is replaced by its CoordConv counterpart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn

from coordconv_apps import to_coordconv
from coordconv_apps.coordinates.models.pixel_networks import GrowingNet, PixelClassifier, PixelRenderer
from coordconv_apps.coordinates.models.position_networks import ConvRegressor, PositionNet, StridedRegressor
from coordconv_apps.nn.coords import Coords
from coordconv_apps.nn.init import he_normal_
from coordconv_apps.nn.parameter_budget import parameter_count, widest_within_budget

PixelNetworkName = Literal["paper", "deconv", "upsample", "budget"]
"""Networks from positions to pixels: the paper's CoordConv network of the task; "deconv", the paper's baseline of
transposed convolutions; "upsample", upsampling and convolutions; "budget", "deconv" with as many channels as fit into
the number of parameters of "paper" with x and y (coordinates come on top)."""

PositionNetworkName = Literal["paper", "dense", "strided", "budget"]
"""Networks from an image to a position: the paper's CoordConv network; "dense" and "strided", the paper's two
baselines; "budget", "strided" with as many channels as fit into the number of parameters of "paper" with x and y."""


def build_pixel_network(
    network: PixelNetworkName,
    coords: Coords,
    *,
    renders: bool = False,
    canvas_size: int = 64,
    objects: int = 1,
    width: int = 1,
    kernel_size: int = 3,
    scale_inputs: bool = True,
    gain: float = 1.0,
    coord_gain: float = 1.0,
) -> nn.Module:
    """Build a network of `CoordinateClassification` or, with ``renders``, `CoordinateRendering`.

    It takes positions in pixels, and gives the logits of all pixels. Coordinates are in the first layer of "paper", and
    in every convolution of the other networks. Weights are He-normal from torch's global generator, and biases are 0.
    The other arguments are those of the task.

    Raises:
        ValueError: The kernel size is even, and the network is "upsample".

    >>> build_pixel_network("paper", "xy")(torch.tensor([[4.0, 59.0]])).shape
    torch.Size([1, 64, 64])
    """
    if network == "upsample" and kernel_size % 2 == 0:
        raise ValueError(f"model.kernel_size={kernel_size}: must be odd for the network upsample, such as 3")

    def paper(coords: Coords) -> nn.Module:
        classifier = PixelClassifier(canvas_size, coords, 2 * objects, scale_inputs=scale_inputs)
        return PixelRenderer(classifier, width) if renders else classifier

    growing = partial(GrowingNet, canvas_size, 2 * objects, kernel_size=kernel_size, scale_inputs=scale_inputs)
    builders: dict[PixelNetworkName, Callable[[], nn.Module]] = {
        "paper": lambda: paper(coords),
        "deconv": lambda: growing(32 * width),
        "upsample": lambda: growing(32 * width, upsample=True),
        "budget": lambda: growing(widest_within_budget(growing, parameter_count(paper("xy")))),
    }
    return _prepare(builders[network](), "none" if network == "paper" else coords, gain, coord_gain)


def build_regressor(
    network: PositionNetworkName,
    coords: Coords,
    *,
    canvas_size: int = 64,
    width: int = 1,
    coord_gain: float = 1.0,
) -> nn.Module:
    """Build a network of `CoordinateRegression`, from images to positions, as `build_pixel_network` does."""
    builders: dict[PositionNetworkName, Callable[[], nn.Module]] = {
        "paper": lambda: PositionNet(coords),
        "dense": lambda: ConvRegressor(canvas_size, 16 * width),
        "strided": lambda: StridedRegressor(16 * width),
        "budget": lambda: StridedRegressor(widest_within_budget(StridedRegressor, parameter_count(PositionNet("xy")))),
    }
    return _prepare(builders[network](), "none" if network == "paper" else coords, 1.0, coord_gain)


def _prepare(network: nn.Module, coords: Coords, gain: float, coord_gain: float) -> nn.Module:
    """Convert a network to CoordConv unless ``coords`` is "none", and draw its weights."""
    if coords != "none":
        to_coordconv(network, "all", coords)
    he_normal_(network, coord_gain=coord_gain)
    for module in network.modules():
        if isinstance(module, PixelClassifier):
            he_normal_(module, gain, coord_gain)
    # The layout that CPUs and GPUs convolve fastest in.
    return network.to(memory_format=torch.channels_last)

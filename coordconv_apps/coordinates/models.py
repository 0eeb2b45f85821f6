"""The networks of the coordinate-transform tasks (Liu et al., 2018, section 4 and supplement), by name.

``paper`` is the paper's CoordConv network of each task, with coordinates where the paper puts them; all others are
networks of plain convolutions, which `build_network` converts whole if they are to have coordinates, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from coordconv_apps import to_coordconv
from coordconv_apps.coordinates.regressors import ConvRegressor, PositionNet, StridedRegressor
from coordconv_apps.coordinates.renderers import GrowingNet, PixelClassifier, PixelRenderer
from coordconv_apps.nn.parameter_budget import parameter_count, widest_within_budget

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordconv_apps.nn.coords import Coords

TaskName = Literal["classification", "regression", "rendering"]
Network = Literal["paper", "deconv", "upsample", "dense", "strided", "budget"]

NETWORKS: dict[TaskName, tuple[Network, ...]] = {
    "classification": ("paper", "deconv", "upsample", "budget"),
    "regression": ("paper", "dense", "strided", "budget"),
    "rendering": ("paper", "deconv", "upsample", "budget"),
}
"""The networks that there are for each task."""


def build_network(
    task: TaskName,
    network: Network,
    coords: Coords,
    *,
    canvas_size: int = 64,
    objects: int = 1,
    width: int = 1,
    kernel_size: int = 3,
    scale_inputs: bool = True,
    gain: float = 1.0,
    coord_gain: float = 1.0,
) -> nn.Module:
    """Build a network of a task.

    Args:
        task: The task.
        network: "paper": the CoordConv network of the task. Classification and rendering: "deconv" (the paper's
            baseline of transposed convolutions) and "upsample" (upsampling and convolutions). Regression: "dense" and
            "strided", the paper's two baselines. "budget": "deconv" or "strided" with as many channels as fit into
            the number of parameters of "paper" with x and y; coordinates come on top.
        coords: Coordinates: in the first layer of "paper", in every convolution of the others.
        canvas_size: Height and width of the canvas, in pixels.
        objects: Squares per sample.
        width: The paper's factor of the numbers of channels (m), for the baselines and for rendering.
        kernel_size: Side of the kernels of "deconv", "upsample" (odd) and of "budget" for them.
        scale_inputs: Whether classification and rendering see positions scaled to [-1, 1], or in pixels.
        gain: Factor of the weights of the 1x1 convolutions of "paper" for classification and rendering.
        coord_gain: Further factor of the coordinates' weights.

    Returns:
        A network with weights drawn at random (He-normal, biases 0) from torch's generator.

    Raises:
        ValueError: The task has no such network, or an argument is out of its range.
    """
    limits = {"canvas_size": (canvas_size, 8), "width": (width, 1), "kernel_size": (kernel_size, 2)}
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"model.{name}={value}: must be an integer of at least {least}")
    if network == "upsample" and kernel_size % 2 == 0:
        raise ValueError(f"model.kernel_size={kernel_size}: must be odd for model.network=upsample, such as 3")
    inputs = 2 * objects

    def classifier(coords: Coords) -> PixelClassifier:
        return PixelClassifier(canvas_size, coords, inputs, scale_inputs=scale_inputs)

    def growing(channels: int, *, upsample: bool = False) -> GrowingNet:
        return GrowingNet(canvas_size, inputs, channels, kernel_size, upsample=upsample, scale_inputs=scale_inputs)

    paper: dict[TaskName, Callable[[Coords], nn.Module]] = {
        "classification": classifier,
        "rendering": lambda coords: PixelRenderer(classifier(coords), width),
        "regression": PositionNet,
    }
    drawing: dict[Network, Callable[[], nn.Module]] = {
        "paper": lambda: paper[task](coords),
        "deconv": lambda: growing(32 * width),
        "upsample": lambda: growing(32 * width, upsample=True),
        "budget": lambda: _within(parameter_count(paper[task]("xy")), growing),
    }
    locating: dict[Network, Callable[[], nn.Module]] = {
        "paper": drawing["paper"],
        "dense": lambda: ConvRegressor(canvas_size, 16 * width),
        "strided": lambda: StridedRegressor(16 * width),
        "budget": lambda: _within(parameter_count(paper[task]("xy")), StridedRegressor),
    }
    if network not in NETWORKS[task]:
        raise ValueError(f"model.network={network}: for {task} there are {', '.join(NETWORKS[task])}")
    built = (locating if task == "regression" else drawing)[network]()
    if coords != "none" and network != "paper":
        to_coordconv(built, "all", coords)
    he_normal_(built, coord_gain=coord_gain)
    for part in built.modules():
        if isinstance(part, PixelClassifier):
            he_normal_(part, gain, coord_gain)
    # The layout that CPUs and GPUs convolve fastest in.
    return built.to(memory_format=torch.channels_last)


def he_normal_(network: nn.Module, gain: float = 1.0, coord_gain: float = 1.0) -> None:
    """Draws all weights from normal distributions with the variance ``2 / fan_in`` (He et al., 2015); biases are 0.

    The coordinate channels count as inputs.

    Args:
        network: Any; only its convolutions and linear layers change.
        gain: Factor of all weights.
        coord_gain: Further factor of the coordinates' weights; 0 starts without them.
    """
    for layer in network.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weights = {layer.weight: gain}
        if isinstance(coord_weight := getattr(layer, "coord_weight", None), Tensor):
            weights[coord_weight] = gain * coord_gain
        fan_in = sum(weight.numel() for weight in weights) / layer.weight.shape[0]
        if isinstance(layer, nn.ConvTranspose2d):  # each output sees one kernel position in stride^2
            fan_in = sum(weight.numel() for weight in weights) / layer.out_channels / math.prod(layer.stride)
        for weight, factor in weights.items():
            nn.init.normal_(weight, std=factor * math.sqrt(2 / fan_in))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _within(budget: int, make: Callable[[int], nn.Module]) -> nn.Module:
    """The network of the most channels that has at most ``budget`` parameters."""
    return make(widest_within_budget(make, budget))

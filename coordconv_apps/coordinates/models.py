"""The networks of the coordinate-transform tasks (Liu et al., 2018, section 4 and supplement).

Networks of classification and rendering take centres ``(B, inputs)`` in pixels and give one logit per pixel, those of
regression take images and give positions. ``paper`` is the paper's CoordConv network of each task; all others are
networks of plain convolutions, which `build_network` converts whole if they are to have coordinates, too.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d, to_coordconv

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordconv_apps.coords import Coords

TaskName = Literal["classification", "regression", "rendering"]
Network = Literal["paper", "deconv", "upsample", "dense", "strided", "budget"]

NETWORKS: dict[TaskName, tuple[Network, ...]] = {
    "classification": ("paper", "deconv", "upsample", "budget"),
    "regression": ("paper", "dense", "strided", "budget"),
    "rendering": ("paper", "deconv", "upsample", "budget"),
}
"""The networks that there are for each task."""

CLASSIFIER_CHANNELS = (32, 32, 64, 64, 1)
"""1x1 convolutions of the paper's CoordConv network of classification."""


class PixelClassifier(nn.Module):
    """1x1 convolutions over (x, y), repeated over the canvas, and the coordinates: the paper's CoordConv network.

    Its first layer is never computed on the repeated input: what it makes of a sample's numbers and what it makes of
    the coordinates are computed apart, once for a sample and once for the canvas, and added.

    Args:
        canvas_size: Height and width of the canvas, in pixels.
        coords: Coordinates in the first layer.
        inputs: Numbers per sample, 2 for each object.
        scale_inputs: Whether to scale pixels to [-1, 1], or to feed them as they are.
    """

    def __init__(self, canvas_size: int, coords: Coords, inputs: int = 2, *, scale_inputs: bool = True) -> None:
        super().__init__()
        self.canvas_size = canvas_size
        self.scale_inputs = scale_inputs
        width = CLASSIFIER_CHANNELS[0]
        self.first: nn.Conv2d = (
            nn.Conv2d(inputs, width, 1) if coords == "none" else CoordConv2d(inputs, width, 1, coords=coords)
        )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(CLASSIFIER_CHANNELS):
            # In place: the canvas is so large that to ask for memory takes longer than to compute.
            layers += [nn.ReLU(inplace=True), nn.Conv2d(before, after, 1)]
        self.rest = nn.Sequential(*layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Logits of all pixels.

        Args:
            centers: ``(B, inputs)`` in pixels.

        Returns:
            ``(B, canvas_size, canvas_size)``.
        """
        if isinstance(self.first, nn.Conv2d):
            hidden = self._of_samples(centers) + self._of_canvas()
        else:  # folded, for export: a layer that knows its canvas
            hidden = self.first(self._inputs(centers).expand(-1, -1, self.canvas_size, self.canvas_size))
        logits: Tensor = self.rest(hidden)
        return logits.squeeze(1)

    def at(self, centers: Tensor, pixels: Tensor) -> Tensor:
        """Logits of chosen pixels: those of `forward`, without the cost of the others.

        Args:
            centers: ``(B, inputs)`` in pixels.
            pixels: int64 ``(B, S)``, numbers of pixels counted row by row.

        Returns:
            ``(B, S)``.
        """
        canvas = self._of_canvas().flatten(2)[0].t()  # (canvas_size^2, channels)
        hidden = canvas[pixels].permute(0, 2, 1).unsqueeze(3) + self._of_samples(centers)
        logits: Tensor = self.rest(hidden)
        return logits[:, 0, :, 0]

    def _inputs(self, centers: Tensor) -> Tensor:
        return (scaled(centers, self.canvas_size) if self.scale_inputs else centers)[:, :, None, None]

    def _of_samples(self, centers: Tensor) -> Tensor:
        return F.conv2d(self._inputs(centers), self.first.weight)

    def _of_canvas(self) -> Tensor:
        size = self.canvas_size
        canvas: Tensor = self.first(self.first.weight.new_zeros(1, self.first.in_channels, size, size))
        return canvas


class PixelRenderer(nn.Module):
    """The classification network, a softmax over the canvas, and 3x3 convolutions: the paper's network for rendering.

    Args:
        classifier: Finds the centres.
        width: Factor of the numbers of channels.

    Attributes:
        halo: How far a pixel of the softmax reaches in what is painted, in pixels.
    """

    def __init__(self, classifier: PixelClassifier, width: int = 1) -> None:
        super().__init__()
        self.classifier = classifier
        layers = [nn.Conv2d(i, o, 3, padding=1) for i, o in _pairs(1, 8, 8, 16, 16, 1, by=width)]
        self.paint = _relu_chain(layers)
        self.halo = len(layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Logits of all pixels, ``(B, H, W)``, for centres ``(B, inputs)`` in pixels."""
        return self.render(self.classifier(centers))

    def render(self, logits: Tensor) -> Tensor:
        """Logits of all pixels of the picture, ``(B, H, W)``, for those of the centre, ``(B, H, W)``."""
        return self.paint_at(logits.flatten(1).softmax(1).view_as(logits))

    def paint_at(self, found: Tensor) -> Tensor:
        """Logits ``(B, h, w)`` of the pixels of a part of the canvas, for their softmax ``(B, h, w)``."""
        painted: Tensor = self.paint(found.unsqueeze(1))
        return painted.squeeze(1)


class GrowingNet(nn.Module):
    """From a 1 x 1 image of the sample's numbers to the canvas in steps of two: the paper's convolution baseline.

    Batch norm and ReLU stand between the layers.

    Args:
        canvas_size: Height and width of the canvas, in pixels; 64 takes six layers. Other sizes than powers of two
            are cut out of the next power.
        inputs: Numbers per sample, 2 for each object.
        channels: Channels of the last two hidden layers; those before have twice as many. The paper's are 32, 64, 96.
        kernel_size: Side of the kernels.
        upsample: Whether each step is nearest-neighbour upsampling and a convolution, or a transposed convolution.
        scale_inputs: Whether to scale pixels to [-1, 1], or to feed them as they are.
    """

    def __init__(
        self,
        canvas_size: int,
        inputs: int = 2,
        channels: int = 32,
        kernel_size: int = 3,
        *,
        upsample: bool = False,
        scale_inputs: bool = True,
    ) -> None:
        super().__init__()
        self.canvas_size = canvas_size
        self.scale_inputs = scale_inputs
        steps = max(3, math.ceil(math.log2(canvas_size)))
        layers: list[nn.Module] = []
        for before, after in _pairs(inputs, *[2 * channels] * (steps - 3), channels, channels, 1):
            if layers:
                layers += [nn.BatchNorm2d(before), nn.ReLU()]
            if upsample:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size, padding="same")]
            else:
                # Twice the size, as TensorFlow's padding "SAME" has it (for kernel 3, its mirror image).
                odd = kernel_size % 2
                layers.append(
                    nn.ConvTranspose2d(
                        before, after, kernel_size, 2, padding=(kernel_size - 2 + odd) // 2, output_padding=odd
                    )
                )
        self.layers = nn.Sequential(*layers)

    def forward(self, centers: Tensor) -> Tensor:
        """Logits of all pixels, ``(B, H, W)``, for centres ``(B, inputs)`` in pixels."""
        inputs = scaled(centers, self.canvas_size) if self.scale_inputs else centers
        logits: Tensor = self.layers(inputs[:, :, None, None])
        start = (logits.shape[-1] - self.canvas_size) // 2
        return logits[:, 0, start : start + self.canvas_size, start : start + self.canvas_size]


class PositionNet(nn.Module):
    """The paper's CoordConv network of regression: linear convolutions, then the maximum over the canvas.

    Args:
        coords: Coordinates in the first layer.
    """

    def __init__(self, coords: Coords) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 1) if coords == "none" else CoordConv2d(1, 8, 1, coords=coords),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 2, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Positions ``(B, 2)``, as shares of the canvas, for images ``(B, 1, H, W)``."""
        marks: Tensor = self.layers(images)
        return marks.flatten(2).max(2).values

    def forward_collapsed(self, images: Tensor) -> Tensor:
        """The same for images whose outermost pixels are 0, at a fraction of the cost.

        Nothing in the network bends before the maximum. So its layers are one 5x5 convolution of the image, plus what
        they make of an empty canvas, which is the same for all images.

        Args:
            images: ``(B, 1, H, W)``.

        Returns:
            Positions ``(B, 2)``, as shares of the canvas.
        """
        kernel = images.new_zeros(1, 1, 9, 9)
        kernel[..., 4, 4] = 1  # an impulse: what becomes of it is the kernel, mirrored
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            kernel = F.conv2d(kernel, layer.weight, padding=layer.padding)
        kernel = kernel[..., 2:7, 2:7].flip(2, 3).transpose(0, 1)
        marks: Tensor = F.conv2d(images, kernel, padding=2) + self.layers(torch.zeros_like(images[:1]))
        return marks.flatten(2).max(2).values


class ConvRegressor(nn.Sequential):
    """The paper's regression baseline for the uniform split: convolutions, pooling, and dense layers.

    Images ``(B, 1, H, W)`` in, positions ``(B, 2)`` out, as shares of the canvas.

    Args:
        canvas_size: Height and width of the images, at least 8 pixels.
        channels: Channels of the convolutions. The paper's are 16, 32, 48.
    """

    def __init__(self, canvas_size: int, channels: int = 16) -> None:
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(_pairs(1, *[channels] * 4)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if number < 3:
                layers.append(nn.MaxPool2d(2))
        features = channels * (canvas_size // 8) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 2))


class StridedRegressor(nn.Sequential):
    """The paper's regression baseline for the quadrant split: strided convolutions, then the mean over the canvas.

    Images ``(B, 1, H, W)`` in, positions ``(B, 2)`` out, as shares of the canvas. ReLU stands between the
    convolutions, batch norm behind the second and the fifth, before their ReLU.

    Args:
        channels: Channels of the convolutions. The paper's are 16, 32, 48.
    """

    def __init__(self, channels: int = 16) -> None:
        kernels = ((5, 2), (1, 1), (3, 1), (3, 2), (3, 2), (3, 2), (1, 1), (3, 2), (3, 1))
        layers: list[nn.Module] = []
        for number, (kernel, stride) in enumerate(kernels, start=1):
            before = 1 if number == 1 else channels
            after = 2 if number == len(kernels) else channels
            layers.append(nn.Conv2d(before, after, kernel, stride, padding=kernel // 2))
            if number in (2, 5):
                layers.append(nn.BatchNorm2d(after))
            if number < len(kernels):
                layers.append(nn.ReLU())
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


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


def scaled(centers: Tensor, canvas_size: int) -> Tensor:
    """Pixels, from 0 to ``canvas_size - 1``, scaled to [-1, 1] as coordinates are."""
    return centers * (2 / (canvas_size - 1)) - 1


def parameter_count(network: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


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


def _pairs(first: int, *rest: int, by: int = 1) -> list[tuple[int, int]]:
    """Inputs and outputs of a chain of layers; all but its two ends are multiplied."""
    sizes = [first, *(by * size for size in rest[:-1]), rest[-1]]
    return list(itertools.pairwise(sizes))


def _relu_chain(layers: list[nn.Conv2d]) -> nn.Sequential:
    """The layers with ReLU between them."""
    chain: list[nn.Module] = [layers[0]]
    for layer in layers[1:]:
        chain += [nn.ReLU(), layer]
    return nn.Sequential(*chain)


def _within(budget: int, make: Callable[[int], nn.Module]) -> nn.Module:
    """The network of the most channels that has at most ``budget`` parameters."""
    channels = 1
    with torch.device("meta"):
        while parameter_count(make(channels + 1)) <= budget:
            channels += 1
    return make(channels)

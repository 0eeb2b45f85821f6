"""Initial weights of whole networks; coordinate channels count as inputs of their layer."""

from __future__ import annotations

import math

from torch import Tensor, nn

from coordconv_apps.nn.torch_internals import ConvNd


def he_normal_(network: nn.Module, gain: float = 1.0, coord_gain: float = 1.0, *, coords_last: bool = False) -> None:
    """Draw weights from normal distributions with variance ``2 / fan_in`` (He et al., 2015) and set biases to 0.

    Args:
        network: Any network; only its convolutions and linear layers change.
        gain: Factor of the standard deviation of all weights.
        coord_gain: Further factor for coordinate weights; 0 starts without coordinates.
        coords_last: Draw the coordinate weights after all other weights. All layers then get the random numbers that
            they get without coordinates at the same seed. By default each coordinate weight follows its layer's weight.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> layer = CoordConv2d(30, 1000, 1, coords="xy")
        >>> he_normal_(layer)
        >>> bool(abs(layer.weight.std() - (2 / 32) ** 0.5) < 0.01)
        True
    """
    draws: list[tuple[bool, Tensor, float]] = []
    for layer in network.modules():
        if not isinstance(layer, ConvNd | nn.Linear):
            continue
        std = math.sqrt(2 / _fan_in(layer))
        draws.append((False, layer.weight, gain * std))
        if (coord_weight := _coord_weight(layer)) is not None:
            draws.append((True, coord_weight, gain * coord_gain * std))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if coords_last:
        draws.sort(key=lambda draw: draw[0])  # stable
    for _, weight, std in draws:
        nn.init.normal_(weight, std=std)


def narrow_normal_(network: nn.Module) -> None:
    """Draw weights from a normal distribution with standard deviation 0.02, as DCGAN does (Radford et al., 2016).

    Scales of batch norm are drawn around 1 with the same deviation, biases of all these layers are set to 0, and
    coordinate weights are drawn after all other weights.

    Example:
        >>> layer = nn.Conv2d(100, 100, 3)
        >>> narrow_normal_(layer)
        >>> bool(abs(layer.weight.std() - 0.02) < 0.001)
        True
    """
    layers = [layer for layer in network.modules() if isinstance(layer, ConvNd | nn.Linear | nn.BatchNorm2d)]
    for layer in layers:
        nn.init.normal_(layer.weight, 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in layers:
        if (coord_weight := _coord_weight(layer)) is not None:
            nn.init.normal_(coord_weight, std=0.02)


def _fan_in(layer: ConvNd | nn.Linear) -> float:
    """Return how many inputs, coordinates included, each output of a layer sums over."""
    coord_weight = _coord_weight(layer)
    numel = layer.weight.numel() + (0 if coord_weight is None else coord_weight.numel())
    if isinstance(layer, ConvNd) and layer.transposed:  # each output sees one kernel position in stride^ndim
        return numel / layer.out_channels / math.prod(layer.stride)
    return numel / layer.weight.shape[0]


def _coord_weight(layer: nn.Module) -> Tensor | None:
    return getattr(layer, "coord_weight", None)

"""The networks of the generative task, by name (Liu et al., 2018, section 5 and supplement)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from coordconv_apps import to_coordconv
from coordconv_apps.nn.parameter_budget import parameter_count, widest_within_budget
from generative.dcgan import ConvGenerator, CoordConvGenerator, Discriminator
from generative.vae import Encoder

if TYPE_CHECKING:
    from coordconv_apps.nn.coords import Coords

Network = Literal["coordconv", "conv", "budget"]


def build_generator(
    network: Network, coords: Coords, *, latent_size: int, image_size: int, width: int, gain: float = 1.0
) -> nn.Module:
    """Build a generator, or the decoder of an autoencoder: latents ``(B, latent_size)`` to images before the tanh.

    Args:
        network: "coordconv": the paper's CoordConv generator. "conv": the paper's baseline of transposed convolutions.
            "budget": "conv" with as many channels as fit into the parameters of "coordconv" with x and y.
        coords: Coordinates: in the first layer of "coordconv", in every transposed convolution of the others.
        latent_size: Numbers that an image is made of.
        image_size: Height and width, in pixels.
        width: Channels of the last hidden layer, in units of which the others are (paper: 64).
        gain: Factor of the He-normal weights of "coordconv".

    Returns:
        A network with weights drawn at random from torch's generator.
    """
    if network == "coordconv":
        built: nn.Module = CoordConvGenerator(latent_size, image_size, width, coords)
        he_normal_(built, gain)
    else:
        channels = width
        if network == "budget":
            channels = _channels_within(latent_size, image_size, width)
        built = ConvGenerator(latent_size, image_size, channels)
        if coords != "none":
            to_coordconv(built, "all", coords)
        narrow_normal_(built)
    # The layout that CPUs and GPUs convolve fastest in.
    return built.to(memory_format=torch.channels_last)


def build_discriminator(coords: Coords, *, image_size: int, width: int, norm: bool) -> Discriminator:
    """Build the discriminator.

    Args:
        coords: Coordinates at its input.
        image_size: Height and width, in pixels.
        width: Channels of its first layer (paper: 64).
        norm: Whether it has batch norm (paper: yes).
    """
    built = Discriminator(image_size, width, norm=norm)
    if coords != "none":
        to_coordconv(built, "first", coords)
    if norm:
        narrow_normal_(built)
    else:
        he_normal_(built)
    return built.to(memory_format=torch.channels_last)


def build_encoder(coords: Coords, *, latent_size: int, image_size: int, width: int) -> Encoder:
    """Build the encoder of an autoencoder.

    Args:
        coords: Coordinates at its input.
        latent_size: Numbers that an image is made of.
        image_size: Height and width, in pixels.
        width: Channels of its first layer.
    """
    built = Encoder(latent_size, image_size, width)
    if coords != "none":
        to_coordconv(built, "first", coords)
    he_normal_(built)
    return built.to(memory_format=torch.channels_last)


def he_normal_(network: nn.Module, gain: float = 1.0) -> None:
    """Draws all weights from normal distributions with the variance ``2 / fan_in`` (He et al., 2015); biases are 0.

    Args:
        network: Any; only its convolutions and linear layers change. Coordinate channels count as inputs.
        gain: Factor of all weights.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / _fan_in(layer)))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in layers:  # last: other weights are those that a network without coordinates has at the same seed
        if (coord_weight := _coord_weight(layer)) is not None:
            nn.init.normal_(coord_weight, std=gain * math.sqrt(2 / _fan_in(layer)))


def _fan_in(layer: nn.Module) -> int:
    weights = (layer.weight, _coord_weight(layer))
    return sum(weight[0].numel() for weight in weights if isinstance(weight, Tensor))


def _coord_weight(layer: nn.Module) -> Tensor | None:
    weight = getattr(layer, "coord_weight", None)
    return weight if isinstance(weight, Tensor) else None


def narrow_normal_(network: nn.Module) -> None:
    """Draws all weights from a normal distribution of standard deviation 0.02, as in DCGAN (Radford et al., 2016).

    Args:
        network: With batch norm; its factors are drawn around 1 likewise, biases are 0.
    """
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    for layer in layers:
        nn.init.normal_(layer.weight, 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in layers:  # last, as above
        if (coord_weight := _coord_weight(layer)) is not None:
            nn.init.normal_(coord_weight, std=0.02)


def _channels_within(latent_size: int, image_size: int, width: int) -> int:
    """The largest width of "conv" that has at most the parameters of "coordconv" of ``width``."""
    with torch.device("meta"):
        budget = parameter_count(CoordConvGenerator(latent_size, image_size, width, "xy"))
    return widest_within_budget(lambda channels: ConvGenerator(latent_size, image_size, channels), budget)

"""The networks of the generative tasks (Liu et al., 2018, section 5 and supplement)."""

from generative.models.discriminator import Discriminator, build_discriminator
from generative.models.encoder import Encoder, Posterior, build_encoder
from generative.models.generators import ConvGenerator, CoordConvGenerator, Network, build_generator

__all__ = [
    "ConvGenerator",
    "CoordConvGenerator",
    "Discriminator",
    "Encoder",
    "Network",
    "Posterior",
    "build_discriminator",
    "build_encoder",
    "build_generator",
]

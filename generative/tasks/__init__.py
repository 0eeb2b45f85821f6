"""The generative tasks: one class for each method."""

from generative.tasks.base import GenerativeTask
from generative.tasks.gan import GAN
from generative.tasks.vae import VAE

__all__ = ["GAN", "VAE", "GenerativeTask"]

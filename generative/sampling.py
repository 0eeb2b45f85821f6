"""From latents to images: what a gan and an autoencoder share once they are trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coordconv_apps.training.task import Task
from coordconv_apps.utils.seeds import mix_seeds
from generative.geometry import REACH, walk_along_axes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordconv_apps.nn.coords import Coords
    from generative.data import NumberBatch
    from generative.geometry import WalkFigures
    from generative.vae import Encoder

Method = Literal["gan", "vae"]

PREDICTION_SEED = 2
"""Of the latents that `predict` makes images of."""

_BLOCK = 256  # rows of latents that come from one seed


class Prediction(NamedTuple):
    """Generated images.

    Attributes:
        indices: int64 ``(B,)``: their numbers.
        latents: ``(B, latent_size)``: what they were made of.
        images: float32 ``(B, 3, H, W)`` in [-1, 1].
    """

    indices: Tensor
    latents: Tensor
    images: Tensor


class Sampler(nn.Module):
    """From latents to images: the generator as it is exported."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` in [-1, 1] for latents ``(B, latent_size)``."""
        return torch.tanh(self.generator(latents))


class SamplingTask(Task):
    """A generator of images and, of an autoencoder, an encoder. A subclass makes and trains them.

    Args:
        coords: Coordinates that the networks see.
        method: "gan" or "vae".
        image_size: Height and width of an image, in pixels.
        latent_size: Numbers that an image is made of.

    Attributes:
        walks: What `follow_walks` has returned in a test that is under way, so that its pictures need not do it again.
    """

    generator: nn.Module
    encoder: Encoder

    def __init__(self, coords: Coords, method: Method, image_size: int, latent_size: int) -> None:
        super().__init__(coords)
        self.method: Method = method
        self.image_size, self.latent_size = image_size, latent_size
        self.averaged: AveragedModel | None = None
        self.walks: WalkFigures | None = None

    def _makers(self) -> nn.ModuleDict:
        """The networks that make images, and are averaged."""
        own: dict[str, nn.Module] = {"generator": self.generator}
        return nn.ModuleDict(own if self.method == "gan" else own | {"encoder": self.encoder})

    # `coordconv_apps.training.weight_averaging` does not fit: it averages the whole task (the discriminator of a GAN
    # included) and uses the average during validations only, while samples are also drawn between them. It has no
    # warm-up either: a decay of 0.999 needs thousands of steps to forget the first weights, and a quick start has six
    # thousand.
    def _start_average(self, decay: float) -> None:
        """From now on images are made by the average of the networks over the training; not if ``decay`` is 0."""
        if decay:
            self.averaged = _average(self._makers(), decay)

    def _update_average(self) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self._makers())

    def draw_latents(self, number: int, seed: int) -> Tensor:
        """Latents to make images of.

        Args:
            number: How many. The first ones are the same for all numbers.
            seed: Fixes them.

        Returns:
            float32 ``(number, latent_size)`` on the CPU: uniform in (-1, 1) for a gan, standard normal for a vae.
        """
        blocks = []
        for block in range(-(-number // _BLOCK)):
            generator = torch.Generator().manual_seed(mix_seeds(seed, block))
            blocks.append(self._noise(_BLOCK, torch.device("cpu"), generator, torch.float32))
        return torch.cat([torch.empty(0, self.latent_size, dtype=torch.float32), *blocks])[:number]

    def _noise(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,  # None: torch's default, which a trainer sets to that of the networks
    ) -> Tensor:
        draw = torch.rand if self.method == "gan" else torch.randn
        noise = draw(number, self.latent_size, generator=generator, device=device, dtype=dtype)
        return noise * 2 - 1 if self.method == "gan" else noise

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Makes images in evaluation mode, by the averaged generator if there is one.

        Args:
            latents: ``(B, latent_size)``.

        Returns:
            float32 ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ValueError: The latents have another size.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent_size:
            raise ValueError(f"latents of shape {tuple(latents.shape)}: must be (B, {self.latent_size})")
        generator = self._maker("generator")
        latents = latents.to(self.device, next(generator.parameters()).dtype)
        return torch.tanh(generator(latents).float()).contiguous()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """What an autoencoder makes of images, from the means of their posteriors.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            float32 ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ValueError: The images have another size, or this is no autoencoder.
        """
        if self.method != "vae":
            raise ValueError("reconstruct: is for model.method=vae, and not for gan")
        if images.shape[1:] != (3, self.image_size, self.image_size):
            size = f"{self.image_size}, {self.image_size}"
            raise ValueError(f"images of shape {tuple(images.shape)}: must be (B, 3, {size})")
        encoder = self._maker("encoder")
        return self.sample(encoder(images.to(self.device, next(encoder.parameters()).dtype)).mean)

    def follow_walks(self, radius: int) -> WalkFigures:
        """Follows the two objects along single latents: always the same walks, over the method's `REACH`.

        Args:
            radius: Of the objects, in pixels.
        """
        return walk_along_axes(self.sample, self.draw_latents, radius, reach=REACH[self.method])

    def _maker(self, name: str) -> nn.Module:
        """The network that makes images, in evaluation mode: in training mode it would change."""
        averaged = self.averaged
        network: nn.Module = getattr(self, name) if averaged is None else averaged.module[name]  # type: ignore[index]
        return network if not network.training else copy.deepcopy(network).eval()

    def predict_step(self, batch: NumberBatch, batch_idx: int) -> Prediction:
        """Makes the images of a batch of numbers.

        Args:
            batch: The numbers.
            batch_idx: Not used.
        """
        latents = self.draw_latents(int(batch.indices.max()) + 1, PREDICTION_SEED)[batch.indices.cpu()]
        return Prediction(batch.indices, latents, self.sample(latents))

    def export_module(self) -> nn.Module:
        """The generator: latents ``(B, latent_size)`` in, images ``(B, 3, H, W)`` in [-1, 1] out."""
        return Sampler(self._maker("generator"))

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two latents, ``(2, latent_size)``."""
        return (self.draw_latents(2, PREDICTION_SEED).to(self.device),)


def _average(networks: nn.ModuleDict, decay: float) -> AveragedModel:
    """An exponential moving average, over fewer steps at the beginning."""

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        if average[0].is_floating_point():
            torch._foreach_lerp_(list(average), list(current), share)
        else:  # how many batches a batch norm has seen
            torch._foreach_copy_(list(average), list(current))

    averaged = AveragedModel(networks, multi_avg_fn=update, use_buffers=True)
    return averaged.requires_grad_(False)

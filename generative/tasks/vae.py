"""Variational autoencoder (Kingma & Welling, 2014) with the generators of Liu et al. (2018) as decoders."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import BELOW_ONE, NON_NEGATIVE, POSITIVE_INT, Allowed, one_of
from generative.datasets import ImageBatch
from generative.losses import Reconstruction, reconstruction_loss
from generative.models import Network, Posterior, build_encoder
from generative.tasks.base import GenerativeTask, Metrics


class VAE(GenerativeTask):
    """Variational autoencoder: an encoder and a decoder.

    It minimises the negative evidence lower bound in nats: ``reconstruction + kl_weight * divergence``.

    Args:
        coords: Coordinates that the decoder and the encoder see: "none" is the plain-convolution baseline, "xy" adds
            the position, "xyr" the position and the distance from the centre.
        network: The decoder: "coordconv" (the paper's generator), "conv" (the paper's baseline), or "budget" ("conv"
            with the parameter count of "coordconv"). "conv" and "budget" get coordinates in all their convolutions.
        baseline: The decoder with coords=none; null: the one named by network.
        image_size: Height and width of the images: a power of two of at least 8.
        latent_size: Number of latents, standard normal.
        width: Channels of the decoder's last hidden layers; the other layers have multiples of it.
        baseline_width: The width of the baseline; null: width.
        encoder_width: Channels of the encoder's first layer; the other layers have multiples of it.
        gain: Factor of the He-normal initial weights of network=coordconv, above 0.
        lr: Peak learning rate of Adam, above 0.
        baseline_lr: Peak learning rate of the baseline; null: lr.
        beta1: Decay of Adam's first moment, in [0, 1).
        beta2: Decay of Adam's second moment, in [0, 1).
        reconstruction: Reconstruction loss: "bernoulli" or "squared".
        channel_weights: Weights of red, green and blue in the reconstruction loss, at least 0.
        kl_weight: Weight of the divergence of the posterior from the prior (beta; Higgins et al., 2017).
        kl_warmup: Fraction of the training, in [0, 1), over which kl_weight increases from 0.
        average: Decay per step of the moving average of the networks that images are made with; 0: no average.
        compile: Whether to compile the networks for training.
        schedule: Learning rate during training: "constant", "cosine" to zero, or "step" at each of lr_milestones.
        warmup: Fraction of the training, in [0, 1), over which the learning rate increases linearly to its peak.
        lr_milestones: Fractions of the training, in (0, 1), at which "step" multiplies the learning rate.
        lr_gamma: Factor of the learning rate at each of lr_milestones, with "step".

    Raises:
        ValueError: An argument is out of its range.
    """

    prior: ClassVar[str] = "draws from the standard normal distribution"
    walk_reach: ClassVar[float] = 2.0  # 95 % of the standard normal prior
    folder_monitor: ClassVar[str] = "val/loss"
    divergence_args: ClassVar[tuple[str, ...]] = ("kl_weight",)
    ranges: ClassVar[dict[str, Allowed]] = GenerativeTask.ranges | {
        "encoder_width": POSITIVE_INT,
        "channel_weights": (lambda value: len(value) == 3 and min(value) >= 0, "three numbers of at least 0"),
        "kl_weight": NON_NEGATIVE,
        "kl_warmup": BELOW_ONE,
        "reconstruction": one_of(Reconstruction),
    }
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "baseline_lr", "beta1", "beta2", "schedule", "warmup", "lr_milestones", "lr_gamma"}
        | {"channel_weights", "kl_weight", "kl_warmup", "compile"}
    )

    def __init__(
        self,
        coords: Coords = "none",
        network: Network = "coordconv",
        baseline: Network | None = "conv",
        image_size: int = 64,
        latent_size: int = 25,
        width: int = 64,
        baseline_width: int | None = None,
        encoder_width: int = 64,
        gain: float = 1.0,
        lr: float = 5e-4,
        baseline_lr: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.99,
        reconstruction: Reconstruction = "bernoulli",
        channel_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        kl_weight: float = 1.0,
        kl_warmup: float = 0.0,
        average: float = 0.0,
        compile: bool = False,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
    ) -> None:
        super().__init__(coords)
        self.encoder = build_encoder(coords, latent_size=latent_size, image_size=image_size, width=encoder_width)
        self.reconstruction: Reconstruction = reconstruction
        self.channel_weights, self.kl_weight, self.kl_warmup = channel_weights, kl_weight, kl_warmup
        names = ("loss", "reconstruction", "divergence")
        self.loss_means = MetricCollection({name: MeanMetric() for name in names}, compute_groups=False)
        self._start_average(average)

    def image_networks(self) -> nn.ModuleDict:
        """Return the decoder and the encoder, which reconstructions need."""
        return nn.ModuleDict({"generator": self.generator, "encoder": self.encoder})

    def _draw_noise(self, number: int, **options: Any) -> Tensor:  # noqa: ANN401  # of torch.randn
        return torch.randn(number, self.latent_size, **options)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode images ``(B, 3, H, W)`` in [-1, 1], and decode the means of their posteriors to float32 images."""
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images of shape {tuple(images.shape)}: must be (B, 3, {size}, {size})")
        encoder = self._image_network("encoder")
        return self.sample(encoder(images.to(self.device, next(encoder.parameters()).dtype)).mean)

    # ---------------------------------------------------------------- training

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, a scalar."""
        images = batch.images.contiguous(memory_format=torch.channels_last)
        posterior = self.encoder(images)
        outputs = self.generator(posterior.sample())
        losses = self._losses(images, posterior, outputs, self._current_kl_weight())
        self.log_train({f"train/{name}": value.detach() for name, value in losses.items()}, len(images))
        return losses["loss"]

    def _losses(self, images: Tensor, posterior: Posterior, outputs: Tensor, kl_weight: float) -> dict[str, Tensor]:
        """Return the loss and its two terms in nats per image."""
        reconstruction = reconstruction_loss(self.reconstruction, outputs, images, self.channel_weights).mean()
        divergence = posterior.kl_divergence().mean()
        loss = reconstruction + kl_weight * divergence
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}

    def _current_kl_weight(self) -> float:
        if not self.kl_warmup:
            return self.kl_weight
        steps = self.kl_warmup * self.trainer.estimated_stepping_batches
        return self.kl_weight * min(1.0, self.global_step / steps)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # as in Lightning
        """Update the moving average after a step."""
        super().optimizer_step(*args, **kwargs)
        self._update_average()

    # -------------------------------------------------------------- evaluation

    def evaluation_step(self, batch: ImageBatch, metrics: Metrics, dataloader_idx: int) -> None:
        """Also add the losses of the images, with the whole ``kl_weight`` and the means of the posteriors."""
        super().evaluation_step(batch, metrics, dataloader_idx)
        posterior = self._image_network("encoder")(batch.images)
        outputs = self._image_network("generator")(posterior.mean)
        losses = self._losses(batch.images, posterior, outputs, self.kl_weight)
        for name, mean in self.loss_means.items():
            mean.update(losses[name], weight=len(batch.images))

    def evaluation_metrics(self, metrics: Metrics, split: EvaluationSplit) -> dict[str, Tensor]:
        """Also compute the mean losses."""
        values = super().evaluation_metrics(metrics, split) | self.loss_means.compute()
        self.loss_means.reset()
        return values

    # -------------------------------------------------------------- optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam for both networks."""
        steps = self.trainer.estimated_stepping_batches
        if self.kl_warmup and not math.isfinite(steps):
            raise ValueError(f"model.kl_warmup={self.kl_warmup}: must be 0 without trainer.max_epochs and max_steps")
        return self._adam(self.image_networks(), self.lr, steps)

"""Generative adversarial network (Goodfellow et al., 2014) as in Liu et al. (2018), section 5."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import NON_NEGATIVE, POSITIVE, POSITIVE_INT, Allowed, int_up_to
from generative.datasets import ImageBatch
from generative.losses import discriminator_loss, feature_matching_loss, generator_loss, gradient_penalty
from generative.models import Network, build_discriminator
from generative.tasks.base import GenerativeTask


class GAN(GenerativeTask):
    """Generative adversarial network: a generator and a discriminator (DCGAN; Radford et al., 2016).

    Args:
        coords: Coordinates that the generator sees: "none" is the plain-convolution baseline, "xy" adds the position,
            "xyr" the position and the distance from the centre.
        network: The generator: "coordconv" (the paper's), "conv" (the paper's baseline), or "budget" ("conv" with the
            parameter count of "coordconv"). "conv" and "budget" get coordinates in all their convolutions.
        baseline: The generator with coords=none; null: the one named by network.
        image_size: Height and width of the images: a power of two of at least 8.
        latent_size: Number of latents, uniform in (-1, 1).
        width: Channels of the generator's last hidden layers; the other layers have multiples of it.
        baseline_width: The width of the baseline; null: width.
        discriminator_width: Channels of the discriminator's first layer; the other layers have multiples of it.
        discriminator_coords: Whether the discriminator sees coordinates at its input, too.
        norm: Whether the discriminator has batch norm.
        before_tanh: Whether the discriminator sees generated images before their tanh, as that of the authors' code
            does. Images of the baseline always have it.
        gain: Factor of the He-normal initial weights of network=coordconv, above 0.
        lr: Peak learning rate of the generator's Adam, above 0.
        baseline_lr: Peak learning rate of the baseline; null: lr.
        discriminator_lr: Peak learning rate of the discriminator's Adam, above 0.
        beta1: Decay of Adam's first moment, in [0, 1).
        beta2: Decay of Adam's second moment, in [0, 1).
        generator_steps: Steps of the generator per step of the discriminator, at most 1000.
        feature_matching: Weight of the feature matching loss of the generator (Salimans et al., 2016); 0: none.
        gradient_penalty: Weight of the gradient penalty of the discriminator at real images (R1; Mescheder et al.,
            2018); 0: none.
        penalty_every: Steps from one gradient penalty to the next. Its weight is multiplied by this number.
        average: Decay per step of the moving average of the generator that images are made with; 0: no average.
        compile: Whether to compile the networks for training; not with both norm and gradient_penalty.
        schedule: Learning rates during training: "constant", "cosine" to zero, or "step" at each of lr_milestones.
        warmup: Fraction of the training, in [0, 1), over which the learning rates increase linearly to their peak.
        lr_milestones: Fractions of the training, in (0, 1), at which "step" multiplies the learning rates.
        lr_gamma: Factor of the learning rates at each of lr_milestones, with "step".

    Raises:
        ValueError: An argument is out of its range, or ``compile``, ``norm`` and ``gradient_penalty`` are combined.
    """

    prior: ClassVar[str] = "draws from the uniform distribution over [-1, 1]"
    walk_reach: ClassVar[float] = 1.0  # the ends of the uniform prior
    folder_monitor: ClassVar[str] = "val/patch_distance"
    divergence_args: ClassVar[tuple[str, ...]] = ("discriminator_lr", "feature_matching", "gradient_penalty")
    ranges: ClassVar[dict[str, Allowed]] = GenerativeTask.ranges | {
        **dict.fromkeys(("discriminator_width", "penalty_every"), POSITIVE_INT),
        "generator_steps": int_up_to(1000),
        **dict.fromkeys(("feature_matching", "gradient_penalty"), NON_NEGATIVE),
        "discriminator_lr": POSITIVE,
    }
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "baseline_lr", "discriminator_lr", "beta1", "beta2", "schedule", "warmup", "lr_milestones", "lr_gamma"}
        | {"generator_steps", "feature_matching", "gradient_penalty", "penalty_every", "compile"}
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
        discriminator_width: int = 64,
        discriminator_coords: bool = False,
        norm: bool = True,
        before_tanh: bool = False,
        gain: float = 1.0,
        lr: float = 5e-4,
        baseline_lr: float | None = None,
        discriminator_lr: float = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        generator_steps: int = 2,
        feature_matching: float = 0.0,
        gradient_penalty: float = 0.0,
        penalty_every: int = 1,
        average: float = 0.0,
        compile: bool = False,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
    ) -> None:
        super().__init__(coords)
        if compile and norm and gradient_penalty > 0:
            raise ValueError("model.compile=True: cannot train with norm and gradient_penalty; set model.norm=false")
        self.discriminator = build_discriminator(
            coords if discriminator_coords else "none", image_size=image_size, width=discriminator_width, norm=norm
        )
        self.automatic_optimization = False
        self.before_tanh = before_tanh and not self.uses_baseline_network
        self.discriminator_lr, self.generator_steps = discriminator_lr, generator_steps
        self.feature_matching = feature_matching
        self.gradient_penalty, self.penalty_every = gradient_penalty, penalty_every
        self._start_average(average)

    def trained_networks(self) -> list[nn.Module]:
        """Return the generator and the discriminator."""
        return [self.generator, self.discriminator]

    def _draw_noise(self, number: int, **options: Any) -> Tensor:  # noqa: ANN401  # of torch.rand
        return torch.rand(number, self.latent_size, **options) * 2 - 1

    # ---------------------------------------------------------------- training

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Take one step of the discriminator, then ``generator_steps`` steps of the generator."""
        images = batch.images.contiguous(memory_format=torch.channels_last)
        discriminator_optimizer, generator_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        values = self._train_discriminator(discriminator_optimizer, images, batch_idx)
        for _ in range(self.generator_steps):
            values |= self._train_generator(generator_optimizer, images)
        for scheduler in cast("list[LambdaLR]", self.lr_schedulers()):
            scheduler.step()
        self._update_average()
        self.log_train(values, len(images))

    def _train_discriminator(self, optimizer: LightningOptimizer, images: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Take one step of the discriminator, and return its loss by name."""
        with torch.no_grad():
            generated = self._generate(len(images))
        penalised = self.gradient_penalty > 0 and batch_idx % self.penalty_every == 0
        images = images.detach().requires_grad_(penalised)
        # Compiled networks have no second derivatives.
        real_logits, _ = (self.discriminator.forward if penalised else self.discriminator)(images)
        generated_logits, _ = self.discriminator(generated)
        loss = discriminator_loss(real_logits, generated_logits)
        values = {"train/discriminator_loss": loss.detach()}
        if penalised:
            loss = loss + self.gradient_penalty * self.penalty_every * gradient_penalty(real_logits, images)
        self._optimize(optimizer, loss)
        return values

    def _train_generator(self, optimizer: LightningOptimizer, images: Tensor) -> dict[str, Tensor]:
        """Take one step of the generator, and return its loss by name."""
        self.toggle_optimizer(optimizer)  # no gradients for the discriminator's weights
        logits, features = self.discriminator(self._generate(len(images)))
        loss = generator_loss(logits)
        values = {"train/generator_loss": loss.detach()}
        if self.feature_matching:
            loss = loss + self.feature_matching * feature_matching_loss(self.discriminator, features, images)
        self._optimize(optimizer, loss)
        self.untoggle_optimizer(optimizer)
        return values

    def _generate(self, number: int) -> Tensor:
        outputs: Tensor = self.generator(self._draw_noise(number, device=self.device))
        return outputs if self.before_tanh else outputs.tanh()

    def _optimize(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        # Autocast caches weights in half precision until the end of the training step, but these have just changed.
        torch.clear_autocast_cache()

    # -------------------------------------------------------------- optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Adam for the discriminator and for the generator."""
        batches: float = self.trainer.estimated_stepping_batches
        if self.trainer.max_steps >= 0:  # it counts the steps of both optimizers
            batches = min(batches, math.ceil(self.trainer.max_steps / (1 + self.generator_steps)))
        networks = ((self.discriminator, self.discriminator_lr), (self.generator, self.lr))
        return [self._adam(network, lr, batches) for network, lr in networks]

"""Training and evaluation of generative models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule, lr_factor
from coordconv_apps.utils.seeds import mix_seeds
from generative.checks import check_arguments
from generative.geometry import REACH, summarise
from generative.losses import (
    Reconstruction,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
)
from generative.metrics import MIN_IMAGES, TwoShapeMetrics
from generative.models import Network, build_discriminator, build_encoder, build_generator
from generative.patches import MIN_PICTURES, PatchDistance
from generative.sampling import Method, SamplingTask

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from generative.data import GenerativeData, ImageBatch, Split
    from generative.vae import Posterior

EVALUATION_SEED = 1
"""Of the latents that evaluations make images of: always the same."""

VALIDATED = (
    "invalid",
    "coverage",
    "floor/coverage",
    "density",
    "precision",
    "recall",
    "intrinsic_dimension",
    "entropy_reduction",
    "js_divergence",
    "sliced_wasserstein",
    "patch_distance",
    "floor/patch_distance",
)
"""The figures of generated images that a validation logs; a test logs all."""


class GenerativeTask(SamplingTask):
    """A generative adversarial network or a variational autoencoder (Liu et al., 2018, section 5).

    Args:
        coords: Coordinates that the generator and the encoder see: "none" is the plain-convolution baseline, "xy",
            or "xyr" with the distance from the centre.
        method: "gan": generator and discriminator (DCGAN; Radford et al., 2016). "vae": encoder and decoder.
        network: The generator, or decoder: "coordconv" (the paper's), "conv" (the paper's baseline), or "budget":
            "conv" with the parameters of "coordconv". The two latter get coordinates in all their layers.
        baseline: The network in place of it with coords=none; null: the same one.
        image_size: Height and width of the data's images: 4 times a power of two, at least 8.
        latent_size: Numbers that an image is made of: uniform in (-1, 1) for a gan, standard normal for a vae.
        width: Channels of the generator's last hidden layers; the others are multiples of it.
        baseline_width: The same for the baseline; null: width.
        discriminator_width: Channels of the first layer of the discriminator, or of the encoder.
        discriminator_coords: With method=gan, whether the discriminator sees coordinates at its input, too.
        norm: With method=gan, whether the discriminator has batch norm.
        gain: Factor of the He-normal weights that network=coordconv starts from, above 0.
        lr: Peak learning rate of Adam, of generator and encoder, above 0.
        baseline_lr: The same for the baseline; null: lr.
        discriminator_lr: With method=gan, peak learning rate of Adam, of the discriminator, above 0.
        beta1: Decay of Adam's first moment, in [0, 1).
        beta2: Decay of Adam's second moment, in [0, 1).
        generator_steps: With method=gan, steps of the generator for each one of the discriminator.
        feature_matching: With method=gan, weight of the distance between mean features of the discriminator.
        gradient_penalty: With method=gan, weight of the squared gradient of the discriminator at real images (R1).
        penalty_every: With method=gan, steps from one gradient penalty to the next, which then counts as many times.
        reconstruction: With method=vae, what reconstructions are compared by: "bernoulli" or "squared".
        channel_weights: With method=vae, what red, green and blue count in that, at least 0; null: 1 each.
        kl_weight: With method=vae, weight of the divergence of posterior from prior (beta; Higgins et al., 2017).
        kl_warmup: With method=vae, share of the training, in [0, 1), over which that weight climbs from 0.
        average: Decay of the averaged weights, by step, that images are made with; 0: the last weights.
        compile: Whether to compile the networks for training.
        schedule: Learning rates over the training: "constant", "cosine" to zero, or "step" by ``lr_gamma`` at
            each of ``lr_milestones``.
        warmup: Share of the training, in [0, 1), over which the rates climb linearly to their peak.
        lr_milestones: Shares of the training, in (0, 1), at which "step" multiplies the rates.
        lr_gamma: What "step" multiplies by.

    Raises:
        ValueError: If an argument is out of range or does not go with the others, or one that only the other method
            knows is not at its default.
    """

    monitor: ClassVar[str] = "val/coverage"
    precisions = ("32-true", "16-mixed", "bf16-mixed")  # sums of many numbers come to a stop in half precision
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "baseline_lr", "discriminator_lr", "beta1", "beta2", "schedule", "warmup", "lr_milestones", "lr_gamma"}
        | {"generator_steps", "feature_matching", "gradient_penalty", "penalty_every"}
        | {"channel_weights", "kl_weight", "kl_warmup"}
        | {"compile"}
    )

    def __init__(
        self,
        coords: Coords = "none",
        method: Method = "gan",
        network: Network = "coordconv",
        baseline: Network | None = "conv",
        image_size: int = 64,
        latent_size: int = 25,
        width: int = 64,
        baseline_width: int | None = None,
        discriminator_width: int = 64,
        discriminator_coords: bool = False,
        norm: bool = True,
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
        reconstruction: Reconstruction = "bernoulli",
        channel_weights: list[float] | None = None,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.0,
        average: float = 0.0,
        compile: bool = False,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
    ) -> None:
        super().__init__(coords, method, image_size, latent_size)
        self.save_hyperparameters()
        check_arguments(self.hparams, GenerativeTask)
        self.lr, self.discriminator_lr, self.betas = lr, discriminator_lr, (beta1, beta2)
        if coords == "none" and baseline is not None:
            network, width = baseline, width if baseline_width is None else baseline_width
            self.lr = lr if baseline_lr is None else baseline_lr
        self.generator_steps, self.feature_matching = generator_steps, feature_matching
        self.gradient_penalty, self.penalty_every = gradient_penalty, penalty_every
        self.reconstruction: Reconstruction = reconstruction
        self.channel_weights = channel_weights or [1.0, 1.0, 1.0]
        self.kl_weight, self.kl_warmup = kl_weight, kl_warmup
        self.schedule: Schedule = schedule
        self.warmup, self.lr_milestones, self.lr_gamma = warmup, lr_milestones or [], lr_gamma
        self.generator = build_generator(
            network, coords, latent_size=latent_size, image_size=image_size, width=width, gain=gain
        )
        sizes = {"image_size": image_size, "width": discriminator_width}
        if method == "gan":
            seen = coords if discriminator_coords else "none"
            self.discriminator = build_discriminator(seen, norm=norm, **sizes)
            self.automatic_optimization = False
        else:
            self.encoder = build_encoder(coords, latent_size=latent_size, **sizes)
        self._start_average(average)
        self._compile = compile
        names = ("loss", "reconstruction", "divergence") if method == "vae" else ()
        self.parts = nn.ModuleDict({name: MeanMetric() for name in names})
        self._latents = torch.empty(0, latent_size)

    def setup(self, stage: str) -> None:
        """Checks that data and networks agree.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: They do not.
        """
        data = self._data()
        if data.image_size != self.image_size:
            raise ValueError(f"model.image_size={self.image_size}: the data have {data.image_size} (data.image_size)")
        parts: dict[str, tuple[Split, ...]] = {"fit": ("val",), "validate": ("val",), "test": ("test",)}
        least = 2 * (MIN_IMAGES if data.source == "shapes" else MIN_PICTURES)
        for part in parts.get(stage, ()):
            if (number := data.num_samples(part)) < least:
                raise ValueError(f"data.num_{part}={number}: must be at least {least}, to compare images with")
        if data.source == "shapes":
            self.metrics: TwoShapeMetrics | PatchDistance = TwoShapeMetrics(self.image_size, data.radius)
        else:
            self.metrics = PatchDistance(self.image_size)
            self.monitor = "val/patch_distance" if self.method == "gan" else "val/loss"  # type: ignore[misc]
            self.monitor_mode = "min"  # type: ignore[misc]  # both depend on the data
        if self._compile and stage == "fit":
            for network in (*self._makers().children(), *([self.discriminator] if self.method == "gan" else [])):
                network.compile()

    def _data(self) -> GenerativeData:
        data: GenerativeData = self.trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        return data

    # ---------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Lets every process draw latents of its own."""
        if self.global_rank:
            torch.manual_seed(mix_seeds(torch.initial_seed(), self.global_rank))
        super().on_train_start()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        """One step of both networks of a gan, or the loss of an autoencoder.

        Args:
            batch: Real images.
            batch_idx: The number of the batch in its epoch.

        Returns:
            The loss of an autoencoder, a scalar.
        """
        images = batch.images.contiguous(memory_format=torch.channels_last)
        if self.method == "gan":
            values = self._train_discriminator(images, batch_idx)
            for _ in range(self.generator_steps):
                values |= self._train_generator(images)
            schedulers = self.lr_schedulers()
            assert isinstance(schedulers, list)
            for scheduler in schedulers:
                scheduler.step()  # type: ignore[call-arg]  # of ReduceLROnPlateau, which is not used
            self._update_average()
            self.log_train(values, len(images))
            return None
        posterior = self.encoder(images)
        loss, parts = self._bound(images, posterior, self.generator(posterior.draw()), self._kl_weight())
        self.log_train({f"train/{name}": value for name, value in parts.items()}, len(images))
        return loss

    def _train_discriminator(self, images: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """One step of the discriminator; its loss by name."""
        optimizer = self._optimizer(0)
        with torch.no_grad():
            generated = torch.tanh(self.generator(self._noise(len(images), self.device)))
        penalised = self.gradient_penalty > 0 and batch_idx % self.penalty_every == 0
        images = images.detach().requires_grad_(penalised)
        # What is compiled has no second derivatives.
        real, _ = (self.discriminator.forward if penalised else self.discriminator)(images)
        false, _ = self.discriminator(generated)
        loss = discriminator_loss(real, false)
        values = {"train/discriminator_loss": loss.detach()}
        if penalised:
            loss = loss + self.gradient_penalty * self.penalty_every * gradient_penalty(real, images)
        self._update(optimizer, loss)
        return values

    def _train_generator(self, images: Tensor) -> dict[str, Tensor]:
        """One step of the generator; its loss by name."""
        optimizer = self._optimizer(1)
        self.toggle_optimizer(optimizer)  # else gradients of the discriminator are computed for nothing
        logits, features = self.discriminator(torch.tanh(self.generator(self._noise(len(images), self.device))))
        loss = generator_loss(logits)
        values = {"train/generator_loss": loss.detach()}
        if self.feature_matching:
            loss = loss + self.feature_matching * feature_distance(self.discriminator, features, images)
        self._update(optimizer, loss)
        self.untoggle_optimizer(optimizer)
        return values

    def _optimizer(self, number: int) -> LightningOptimizer:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        optimizer = optimizers[number]
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _update(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        # Autocast keeps weights in half precision until the end of the whole step: by now they are old.
        torch.clear_autocast_cache()

    def _bound(
        self, images: Tensor, posterior: Posterior, outputs: Tensor, kl_weight: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of an autoencoder, in nats for an image, and its parts by name."""
        reconstruction = reconstruction_loss(self.reconstruction, outputs, images, self.channel_weights).mean()
        divergence = posterior.divergence().mean()
        loss = reconstruction + kl_weight * divergence
        parts = {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}
        return loss, {name: value.detach() for name, value in parts.items()}

    def _kl_weight(self) -> float:
        if not self.kl_warmup:
            return self.kl_weight
        return self.kl_weight * min(1.0, self.global_step / (self.kl_warmup * self._training_steps()))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # Lightning's
        """Updates the average after a step of an autoencoder."""
        super().optimizer_step(*args, **kwargs)
        self._update_average()

    # -------------------------------------------------------------- evaluation

    def _start(self, part: Split) -> None:
        """Draws the latents of an evaluation: half as many as there are real images, which the metrics split."""
        self._share_statistics()
        number = self._data().num_samples(part)
        self._latents = self.draw_latents(-(-number // 2), EVALUATION_SEED)

    def _share_statistics(self) -> None:
        """Gives all processes the batch norms' statistics of the first, as DDP does where it runs the optimizer."""
        if self.trainer.world_size > 1:
            norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
            for buffer in (buffer for norm in norms for buffer in norm.buffers()):
                torch.distributed.broadcast(buffer, 0)

    def _step(self, batch: ImageBatch) -> None:
        self.metrics.update(batch.images, real=True)
        mine = batch.indices[batch.indices < len(self._latents)].cpu()
        if len(mine):
            self.metrics.update(self.sample(self._latents[mine]), real=False)
        if self.method == "vae":
            posterior = self._maker("encoder")(batch.images)
            outputs = self._maker("generator")(posterior.mean)
            _, parts = self._bound(batch.images, posterior, outputs, self.kl_weight)
            for name, mean in self._means():
                mean.update(parts[name], weight=len(batch.images))

    def _means(self) -> list[tuple[str, MeanMetric]]:
        return [(name, mean) for name, mean in self.parts.items() if isinstance(mean, MeanMetric)]

    def _figures(self) -> dict[str, Tensor]:
        """The figures of all processes."""
        values: dict[str, Tensor] = self.metrics.compute()
        values |= {name: mean.compute() for name, mean in self._means()}
        self.metrics.reset()
        for _, mean in self._means():
            mean.reset()
        return {name: value.to(self.device) for name, value in values.items()}

    def on_validation_epoch_start(self) -> None:
        """Draws latents."""
        self._start("val")

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Adds a batch to the validation figures.

        Args:
            batch: Real images.
            batch_idx: Not used.
        """
        self._step(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures that one looks at during a training."""
        values = self._figures()
        # Every process holds the figures of all of them; the mean of equal numbers changes nothing.
        names = (*VALIDATED, *self.parts)
        self.log_dict({f"val/{name}": values[name] for name in names if name in values}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Draws latents."""
        self._start("test")

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Adds a batch to the test figures.

        Args:
            batch: Real images.
            batch_idx: Not used.
        """
        self._step(batch)

    def on_test_epoch_end(self) -> None:
        """Logs all figures, and those of walks through the latents."""
        values: dict[str, Any] = {f"test/{name}": value for name, value in self._figures().items()}
        data = self._data()
        if data.source == "shapes":
            self.walks = self.follow_walks(data.radius)
            values |= {f"test/{name}": value for name, value in summarise(self.walks, REACH[self.method]).items()}
        self.log_dict(values, sync_dist=True)

    def on_test_end(self) -> None:
        """Forgets the walks, which the test's pictures have drawn by now: the networks may change."""
        self.walks = None

    # -------------------------------------------------------------- optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam for each network, and schedules of their rates batch by batch."""
        makers = (self._makers(), self.lr)
        trained = [(self.discriminator, self.discriminator_lr), makers] if self.method == "gan" else [makers]
        steps = self._training_steps()
        if self.kl_warmup and not math.isfinite(steps):
            raise ValueError(f"model.kl_warmup={self.kl_warmup}: must be 0 without trainer.max_epochs and max_steps")
        factor = lr_factor(self.schedule, steps, warmup=self.warmup, milestones=self.lr_milestones, gamma=self.lr_gamma)
        # Lightning cannot clip the gradients of fused optimizers in half precision.
        fused = self.device.type in ("cpu", "cuda") and not self.trainer.gradient_clip_val
        optimizers = [torch.optim.Adam(own.parameters(), lr=lr, betas=self.betas, fused=fused) for own, lr in trained]
        return [
            OptimizerLRSchedulerConfig(
                optimizer=optimizer, lr_scheduler={"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
            )
            for optimizer in optimizers
        ]

    def _training_steps(self) -> float:
        """Batches of the whole training."""
        batches: float = self.trainer.estimated_stepping_batches
        if self.method == "gan" and self.trainer.max_steps >= 0:  # which counts steps of optimizers
            batches = min(batches, math.ceil(self.trainer.max_steps / (1 + self.generator_steps)))
        return batches

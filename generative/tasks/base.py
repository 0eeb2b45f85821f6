"""Base of the generative tasks: sampling, evaluation, prediction and export with a trained generator."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from coordconv_apps.training.evaluation import EvaluatedTask, Stage
from coordconv_apps.training.optimizers import can_fuse, schedule_by_step
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.seeds import mix_seeds
from generative.data import GenerativeData, IndexBatch, Split
from generative.datasets import ImageBatch
from generative.latent_walks import measure_axis_walks, walk_metrics
from generative.metrics.patch_distance import MIN_IMAGES as MIN_FOLDER_IMAGES
from generative.metrics.patch_distance import PatchDistance
from generative.metrics.two_shapes import MIN_IMAGES, TwoShapeMetrics
from generative.tasks.moving_average import moving_average

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
    from torch.optim.swa_utils import AveragedModel

    from coordconv_apps.nn.coords import Coords
    from coordconv_apps.utils.argument_checks import Allowed
    from generative.latent_walks import WalkMeasurements

EVALUATION_SEED = 1
"""Seed of the latents of every evaluation."""

PREDICTION_SEED = 2
"""Seed of the latents of ``predict``."""

POSITIVE_INTEGER: Allowed = (lambda value: value >= 1, "an integer of at least 1")
POSITIVE: Allowed = (lambda value: value > 0, "above 0")
NOT_NEGATIVE: Allowed = (lambda value: value >= 0, "at least 0")
BELOW_ONE: Allowed = (lambda value: 0 <= value < 1, "in [0, 1)")

SHARED_RANGES: Mapping[str, Allowed] = {
    "image_size": (lambda value: value >= 8 and value & (value - 1) == 0, "a power of two of at least 8"),
    **dict.fromkeys(("latent_size", "width", "baseline_width"), POSITIVE_INTEGER),
    **dict.fromkeys(("gain", "lr", "baseline_lr"), POSITIVE),
    **dict.fromkeys(("beta1", "beta2", "average"), BELOW_ONE),
}
"""Allowed values of the arguments that all tasks have. The arguments of the other arm are checked, too, so that a
comparison fails at once."""

_LATENT_BLOCK = 256  # latents drawn from one seed


Metrics = TwoShapeMetrics | PatchDistance


class Samples(NamedTuple):
    """Generated images.

    Attributes:
        indices: int64 ``(B,)``: index of each sample.
        latents: ``(B, latent_size)``: the latents that they were generated from.
        images: float32 ``(B, 3, H, W)`` in [-1, 1].
    """

    indices: Tensor
    latents: Tensor
    images: Tensor


class ImageGenerator(nn.Module):
    """A generator followed by tanh, as it is exported: latents ``(B, latent_size)`` to images in [-1, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor) -> Tensor:
        """Generate images ``(B, 3, H, W)``."""
        return torch.tanh(self.generator(latents))


class GenerativeTask(EvaluatedTask[ImageBatch, Metrics], ABC):
    """Base of the generative tasks: everything that they share once their generator is trained.

    A subclass builds its networks, trains them, and implements `_draw_noise`.

    Args:
        coords: Coordinates that the networks see.
        image_size: Height and width of an image, in pixels.
        latent_size: Number of latents.

    Attributes:
        walk_reach: Walks through the latent space go from ``-walk_reach`` to ``walk_reach``.
        folder_monitor: The metric, the smaller the better, that decides which checkpoint is best for a folder.
        trained_networks: Names of the trained networks.
        image_networks: Names of the networks that make images. They are averaged over the training.
        validation_metrics: Names of the metrics that a validation logs. A test logs all metrics.
        walks: The walks of a test until its pictures are drawn, so that they are not computed twice.
    """

    monitor: ClassVar[str] = "val/coverage"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    precisions: ClassVar[tuple[str, ...] | None] = ("32-true", "16-mixed", "bf16-mixed")  # long sums need float32
    walk_reach: ClassVar[float]
    folder_monitor: ClassVar[str]
    trained_networks: ClassVar[tuple[str, ...]]
    image_networks: ClassVar[tuple[str, ...]]
    validation_metrics: ClassVar[tuple[str, ...]] = (
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

    generator: nn.Module

    def __init__(self, coords: Coords, image_size: int, latent_size: int) -> None:
        super().__init__(coords)
        self.image_size, self.latent_size = image_size, latent_size
        self.averaged: AveragedModel | None = None
        self.walks: WalkMeasurements | None = None
        self._compile = False
        self._evaluation_latents = torch.empty(0, latent_size)

    def setup(self, stage: str) -> None:
        """Check that the data fit the networks, and choose the metrics for the data.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            ValueError: The data have another image size, or too few images to evaluate.
        """
        data = self._data()
        if data.image_size != self.image_size:
            raise ValueError(f"model.image_size={self.image_size}: the data have {data.image_size} (data.image_size)")
        splits: dict[str, Split] = {"fit": "val", "validate": "val", "test": "test"}
        least = 2 * (MIN_IMAGES if data.source == "shapes" else MIN_FOLDER_IMAGES)
        if (split := splits.get(stage)) is not None and (number := data.num_samples(split)) < least:
            raise ValueError(f"data.num_{split}={number}: must be at least {least}, to compare images with")
        if data.source == "shapes":
            self.val_metrics: Metrics = TwoShapeMetrics(self.image_size, data.radius)
            self.test_metrics: Metrics = TwoShapeMetrics(self.image_size, data.radius)
        else:
            self.val_metrics, self.test_metrics = PatchDistance(self.image_size), PatchDistance(self.image_size)
            self.monitor = self.folder_monitor  # type: ignore[misc]
            self.monitor_mode = "min"  # type: ignore[misc]  # both depend on the data
        if self._compile and stage == "fit":
            for name in self.trained_networks:
                getattr(self, name).compile()

    def _data(self) -> GenerativeData:
        return attached_datamodule(self.trainer, GenerativeData)

    def on_train_start(self) -> None:
        """Give every process its own random numbers, and thereby its own latents."""
        if self.global_rank:
            torch.manual_seed(mix_seeds(torch.initial_seed(), self.global_rank))
        super().on_train_start()

    # ---------------------------------------------------------------- sampling

    @abstractmethod
    def _draw_noise(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw latents ``(number, latent_size)`` from the prior.

        Args:
            number: Number of latents.
            device: Their device.
            generator: Random number generator; None: torch's global one.
            dtype: Data type; None: torch's default, which a trainer sets to that of the networks.
        """

    def draw_latents(self, number: int, seed: int) -> Tensor:
        """Draw latents from the prior.

        Args:
            number: How many. With the same seed, a smaller number gives the first of the same latents.
            seed: Seed of the random numbers.

        Returns:
            float32 ``(number, latent_size)`` on the CPU.
        """
        blocks = []
        for block in range(-(-number // _LATENT_BLOCK)):
            generator = torch.Generator().manual_seed(mix_seeds(seed, block))
            blocks.append(self._draw_noise(_LATENT_BLOCK, torch.device("cpu"), generator, torch.float32))
        return torch.cat([torch.empty(0, self.latent_size, dtype=torch.float32), *blocks])[:number]

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate images in evaluation mode, by the averaged generator if there is one.

        Args:
            latents: ``(B, latent_size)``.

        Returns:
            float32 ``(B, 3, H, W)`` in [-1, 1].

        Raises:
            ValueError: The latents have another size.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent_size:
            raise ValueError(f"latents of shape {tuple(latents.shape)}: must be (B, {self.latent_size})")
        generator = self._image_network("generator")
        latents = latents.to(self.device, next(generator.parameters()).dtype)
        return torch.tanh(generator(latents).float()).contiguous()

    def measure_walks(self, radius: int) -> WalkMeasurements:
        """Follow the two objects along walks that each change one latent; always the same walks.

        Args:
            radius: Radius of the objects, in pixels.
        """
        return measure_axis_walks(self.sample, self.draw_latents, radius, reach=self.walk_reach)

    def _image_network(self, name: str) -> nn.Module:
        """Return a network that makes images, averaged if there is an average, in evaluation mode."""
        averaged = self.averaged
        network: nn.Module = getattr(self, name) if averaged is None else averaged.module[name]  # type: ignore[index]
        return network if not network.training else copy.deepcopy(network).eval()  # a copy: the mode must not change

    def _start_average(self, decay: float) -> None:
        """Start to average the networks that make images, unless ``decay`` is 0."""
        if decay:
            self.averaged = moving_average(self._image_networks(), decay)

    def _update_average(self) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self._image_networks())

    def _image_networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: getattr(self, name) for name in self.image_networks})

    # -------------------------------------------------------------- evaluation

    def on_validation_epoch_start(self) -> None:
        """Draw latents."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Draw latents."""
        self._start_evaluation("test")

    def on_test_end(self) -> None:
        """Drop the walks: the pictures of the test are drawn by now, and the networks may change."""
        self.walks = None

    def _start_evaluation(self, split: Split) -> None:
        """Draw latents, half as many as there are real images, because the metrics split the real images."""
        self._broadcast_batch_norm()
        number = self._data().num_samples(split)
        self._evaluation_latents = self.draw_latents(-(-number // 2), EVALUATION_SEED)

    def _broadcast_batch_norm(self) -> None:
        """Give all processes the batch norm statistics of the first one, as DDP does with automatic optimization."""
        if self.trainer.world_size > 1:
            norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
            for buffer in (buffer for norm in norms for buffer in norm.buffers()):
                torch.distributed.broadcast(buffer, 0)

    def evaluation_step(self, batch: ImageBatch, metrics: Metrics, dataloader_idx: int) -> None:
        """Add a batch of real images, and the generated images of the same indices, to the metrics."""
        metrics.update(batch.images, real=True)
        indices = batch.indices[batch.indices < len(self._evaluation_latents)].cpu()
        if len(indices):
            metrics.update(self.sample(self._evaluation_latents[indices]), real=False)

    def evaluation_metrics(self, metrics: Metrics, stage: Stage) -> dict[str, Tensor]:
        """Compute the metrics over all processes: those of ``validation_metrics``, or all and those of walks."""
        values: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        if stage == "val":
            return {name: values[name] for name in self.validation_metrics if name in values}
        data = self._data()
        if data.source == "shapes":
            self.walks = self.measure_walks(data.radius)
            walks = walk_metrics(self.walks, self.walk_reach)
            values |= {name: torch.tensor(value, dtype=torch.float32) for name, value in walks.items()}
        return values

    # ------------------------------------------------------ prediction, export

    def predict_step(self, batch: IndexBatch, batch_idx: int) -> Samples:
        """Generate the images of a batch of indices."""
        latents = self.draw_latents(int(batch.indices.max()) + 1, PREDICTION_SEED)[batch.indices.cpu()]
        return Samples(batch.indices, latents, self.sample(latents))

    def export_module(self) -> nn.Module:
        """Return the generator: latents ``(B, latent_size)`` in, images ``(B, 3, H, W)`` in [-1, 1] out."""
        return ImageGenerator(self._image_network("generator"))

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two latents, ``(2, latent_size)``."""
        return (self.draw_latents(2, PREDICTION_SEED).to(self.device),)

    # -------------------------------------------------------------- optimizers

    def _adam(
        self, network: nn.Module, lr: float, betas: tuple[float, float], factor: Callable[[int], float]
    ) -> OptimizerLRSchedulerConfig:
        """Return Adam for a network, with a learning rate that changes at every step.

        Args:
            network: The network.
            lr: Peak learning rate.
            betas: Decay of the first and the second moment.
            factor: From the number of steps to the share of the peak learning rate.
        """
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas, fused=can_fuse(self))
        return schedule_by_step(optimizer, factor)

"""Base of the generative tasks: sampling, evaluation, prediction and export with a trained generator."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.evaluation import EvaluatedTask
from coordconv_apps.training.optimizers import can_fuse, schedule_by_step
from coordconv_apps.training.schedules import SCHEDULE_RANGES, task_lr_factor
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.training.trainer_access import attached_datamodule, only_checks_code
from coordconv_apps.utils.argument_checks import (
    BELOW_ONE,
    POSITIVE,
    POSITIVE_INT,
    Allowed,
    check_at_least,
    one_of,
)
from coordconv_apps.utils.seeds import mix_seeds
from generative.data import GenerativeData
from generative.datasets import ImageBatch
from generative.latent_walks import WALKS, WalkMeasurements, measure_walks, walk_metrics
from generative.metrics.errors import TooFewImages
from generative.metrics.patch_distance import MIN_IMAGES as MIN_FOLDER_IMAGES
from generative.metrics.patch_distance import PatchDistance
from generative.metrics.two_shapes import MIN_IMAGES, TwoShapeMetrics
from generative.models import Network, build_generator
from generative.tasks.moving_average import moving_average

EVALUATION_SEED = 1  # seed of the latents of every evaluation
PREDICTION_SEED = 2  # seed of the latents of ``predict``
WALK_SEED = 0  # seed of the latents that walks go through

_LATENT_BLOCK = 256  # latents drawn from one seed

Metrics = TwoShapeMetrics | PatchDistance


class Samples(NamedTuple):
    """Generated images."""

    indices: Tensor  # int64 (B,): index of each sample
    latents: Tensor  # (B, latent_size)
    images: Tensor  # float32 (B, 3, H, W) in [-1, 1]


class GenerativeTask(EvaluatedTask[ImageBatch, Metrics], ABC):
    """Base class of the generative tasks: builds the generator, evaluates it, and generates and exports images.

    A subclass has all arguments that this class reads from ``self.hparams``, builds and trains its other networks,
    calls `_start_average` when all are built, and implements `_draw_noise`.

    Args:
        coords: Coordinates that the networks see.

    Attributes:
        prior: Distribution of the latents, in words, for exported files.
        walk_reach: Walks through the latent space go from ``-walk_reach`` to ``walk_reach``.
        folder_monitor: The metric that selects the best checkpoint for a folder; smaller is better.
        validation_metrics: Names of the metrics that a validation logs. A test logs all metrics.
        walks: The walks of a test until its pictures are drawn, so that they are not computed twice.
    """

    monitor: ClassVar[str] = "val/coverage"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    precisions: ClassVar[tuple[str, ...] | None] = ("32-true", "16-mixed", "bf16-mixed")  # long sums need float32
    ranges: ClassVar[dict[str, Allowed]] = {  # of both arms, so that a comparison fails at once
        "image_size": (lambda value: value >= 8 and value & (value - 1) == 0, "a power of two of at least 8"),
        **dict.fromkeys(("latent_size", "width", "baseline_width"), POSITIVE_INT),
        **dict.fromkeys(("gain", "lr", "baseline_lr"), POSITIVE),
        **dict.fromkeys(("beta1", "beta2", "average"), BELOW_ONE),
        **dict.fromkeys(("network", "baseline"), one_of(Network)),
        **SCHEDULE_RANGES,
    }
    prior: ClassVar[str]
    walk_reach: ClassVar[float]
    folder_monitor: ClassVar[str]
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

    def __init__(self, coords: Coords) -> None:
        super().__init__(coords)
        hparams = self.hparams
        self.image_size: int = hparams["image_size"]
        self.latent_size: int = hparams["latent_size"]
        self.lr: float = hparams[self.arm_argument("lr")]
        self.generator = build_generator(
            self.arm_network,
            coords,
            latent_size=self.latent_size,
            image_size=self.image_size,
            width=hparams[self.arm_argument("width")],
            gain=hparams["gain"],
        )
        self.averaged: AveragedModel | None = None
        self.walks: WalkMeasurements | None = None
        self._evaluation_latents = torch.empty(0, self.latent_size)

    def setup(self, stage: str) -> None:
        """Check that the data fit the networks and are enough to evaluate, and choose the metrics for the data."""
        data = self.data
        if data.image_size != self.image_size:
            raise ValueError(f"model.image_size={self.image_size}: the data have {data.image_size} (data.image_size)")
        if stage != "predict":
            self._check_number(data, "test" if stage == "test" else "val")
        if data.source == "shapes":
            self.val_metrics: Metrics = TwoShapeMetrics(self.image_size, data.radius)
            self.test_metrics: Metrics = TwoShapeMetrics(self.image_size, data.radius)
        else:
            self.val_metrics, self.test_metrics = PatchDistance(self.image_size), PatchDistance(self.image_size)
            self.monitor = self.folder_monitor  # type: ignore[misc]
            self.monitor_mode = "min"  # type: ignore[misc]  # both depend on the data
        if self.hparams["compile"] and stage == "fit":
            for network in self.trained_networks():
                network.compile()

    def _check_number(self, data: GenerativeData, split: EvaluationSplit) -> None:
        """Raise `ValueError` if too few real images are evaluated to compare, unless that is a ``fast_dev_run``."""
        least = 2 * (MIN_IMAGES if data.source == "shapes" else MIN_FOLDER_IMAGES)
        number = data.num_samples(split)
        if number < least:
            raise ValueError(
                f"data.num_{split}={number}: must be at least {least}, for the metrics that compare images"
            )
        limit = self.trainer.limit_test_batches if split == "test" else self.trainer.limit_val_batches
        size = data.eval_batch_size * self.trainer.world_size
        evaluated = size * (int(-(-number // size) * limit) if isinstance(limit, float) else limit)
        if 0 < evaluated < least and not only_checks_code(self.trainer):
            overfit = split == "val" and getattr(self.trainer, "overfit_batches", 0) > 0
            name = "overfit_batches" if overfit else f"limit_{split}_batches"
            raise ValueError(
                f"trainer.{name}={limit}: evaluates {evaluated} of"
                f" {number} images (data.eval_batch_size={data.eval_batch_size}), must be at least {least}"
            )

    @property
    def data(self) -> GenerativeData:
        """The trainer's data module."""
        return attached_datamodule(self.trainer, GenerativeData)

    # ---------------------------------------------------------------- sampling

    @abstractmethod
    def _draw_noise(self, number: int, **options: Any) -> Tensor:  # noqa: ANN401  # of torch.rand
        """Draw latents ``(number, latent_size)`` from the prior, with the options of `torch.rand`."""

    def draw_latents(self, number: int, seed: int) -> Tensor:
        """Draw latents from the prior: float32 ``(number, latent_size)`` on the CPU.

        With the same seed, a smaller number gives the first rows of a larger one.
        """
        blocks = []
        for block in range(-(-number // _LATENT_BLOCK)):
            generator = torch.Generator().manual_seed(mix_seeds(seed, block))
            blocks.append(self._draw_noise(_LATENT_BLOCK, generator=generator, device="cpu", dtype=torch.float32))
        return torch.cat([torch.empty(0, self.latent_size, dtype=torch.float32), *blocks])[:number]

    @torch.no_grad()
    def sample(self, latents: Tensor) -> Tensor:
        """Generate images from latents ``(B, latent_size)``: float32 ``(B, 3, H, W)`` in [-1, 1].

        This uses the averaged generator, if there is one, in evaluation mode.
        """
        if latents.ndim != 2 or latents.shape[1] != self.latent_size:
            raise ValueError(f"latents of shape {tuple(latents.shape)}: must be (B, {self.latent_size})")
        generator = self._image_network("generator")
        latents = latents.to(self.device, next(generator.parameters()).dtype)
        return torch.tanh(generator(latents).float()).contiguous()

    def measure_walks(self, radius: int) -> WalkMeasurements:
        """Follow two objects with a radius in pixels along walks that each change one latent; always the same walks.

        Every latent has the same number of walks, each through its own point.
        """
        axes = torch.arange(self.latent_size).repeat_interleave(-(-WALKS // self.latent_size))
        latents = self.draw_latents(len(axes), WALK_SEED)
        return measure_walks(self.sample, latents, axes, radius, reach=self.walk_reach)

    def image_networks(self) -> nn.ModuleDict:
        """Return the networks that make images, which are averaged over the training: the generator alone."""
        return nn.ModuleDict({"generator": self.generator})

    def trained_networks(self) -> list[nn.Module]:
        """Return all networks that are trained: those that make images."""
        return list(self.image_networks().values())

    def _image_network(self, name: Literal["generator", "encoder"]) -> nn.Module:
        """Return one of `image_networks`, averaged if there is an average, in evaluation mode."""
        averaged = self.averaged
        network = (self.image_networks() if averaged is None else cast("nn.ModuleDict", averaged.module))[name]
        return network if not network.training else copy.deepcopy(network).eval()  # a copy: the mode must not change

    def _start_average(self, decay: float) -> None:
        """Start to average the networks that make images, unless ``decay`` is 0."""
        if decay:
            self.averaged = moving_average(self.image_networks(), decay)

    def _update_average(self) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.image_networks())

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

    def _start_evaluation(self, split: EvaluationSplit) -> None:
        """Draw latents, half as many as there are real images, because the metrics split the real images."""
        if self.trainer.world_size > 1:
            # All processes get the batch norm statistics of the first one, as with DDP and automatic optimization.
            norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
            for buffer in (buffer for norm in norms for buffer in norm.buffers()):
                torch.distributed.broadcast(buffer, 0)
        number = self.data.num_samples(split)
        self._evaluation_latents = self.draw_latents(-(-number // 2), EVALUATION_SEED)

    def evaluation_step(self, batch: ImageBatch, metrics: Metrics, dataloader_idx: int) -> None:
        """Add a batch of real images, and the generated images of the same indices, to the metrics."""
        metrics.update(batch.images, real=True)
        indices = batch.indices[batch.indices < len(self._evaluation_latents)].cpu()
        if len(indices):
            metrics.update(self.sample(self._evaluation_latents[indices]), real=False)

    def evaluation_metrics(self, metrics: Metrics, split: EvaluationSplit) -> dict[str, Tensor]:
        """Compute the metrics over all processes: those of ``validation_metrics``, or all and those of walks."""
        values: dict[str, Tensor] = {}
        try:
            values = metrics.compute()
        except TooFewImages:  # a check of the code may evaluate a single batch
            if not only_checks_code(self.trainer):
                raise
        if split == "val":
            return {name: values[name] for name in self.validation_metrics if name in values}
        data = self.data
        if data.source == "shapes":
            self.walks = self.measure_walks(data.radius)
            walks = walk_metrics(self.walks, self.walk_reach)
            values |= {name: torch.tensor(value, dtype=torch.float32) for name, value in walks.items()}
        return values

    # ------------------------------------------------------ prediction, export

    def predict_step(self, batch: Tensor, batch_idx: int) -> Samples:
        """Generate the images of a batch of indices, int64 ``(B,)``."""
        latents = self.draw_latents(int(batch.max()) + 1, PREDICTION_SEED)[batch.cpu()]
        return Samples(batch, latents, self.sample(latents))

    def predict(self, latents: int | NDArray[np.floating] | Tensor, seed: int = PREDICTION_SEED) -> Tensor:
        """Generate images as the command ``predict`` does.

        Args:
            latents: Latents ``(N, latent_size)``, a tensor or an array, such as that in ``samples.npz``; or the number
                of latents to draw from the prior.
            seed: Seed of these latents. With the default, the images are those of the command.

        Returns:
            RGB images, float32 ``(N, 3, image_size, image_size)`` in [0, 1] on the CPU.

        Raises:
            ValueError: The latents have another shape, or their number is below 1.

        Example:
            >>> from generative import GAN
            >>> GAN(image_size=16, width=4).predict(2).shape  # or GAN.load_from_checkpoint(path)
            torch.Size([2, 3, 16, 16])
        """
        if isinstance(latents, int | np.integer):
            check_at_least(1, latents=int(latents))
            latents = self.draw_latents(int(latents), seed)
        with self.inference():
            return self.sample(torch.as_tensor(latents)).cpu().add_(1).div_(2).clamp_(0, 1)

    def export_module(self) -> nn.Module:
        """Return the generator: latents ``(B, latent_size)`` in, images ``(B, 3, H, W)`` in [-1, 1] out."""
        return nn.Sequential(OrderedDict(generator=self._image_network("generator"), tanh=nn.Tanh()))

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface(
            inputs={"latents": self.prior},
            outputs={"images": "RGB images in [-1, 1]; (images + 1) / 2 is in [0, 1]"},
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two latents, ``(2, latent_size)``."""
        return (self.draw_latents(2, PREDICTION_SEED).to(self.device),)

    # -------------------------------------------------------------- optimizers

    def _adam(self, network: nn.Module, lr: float, steps: float) -> OptimizerLRSchedulerConfig:
        """Return Adam with a peak learning rate, and its schedule for a training of ``steps`` steps."""
        hparams = self.hparams
        betas = (hparams["beta1"], hparams["beta2"])
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas, fused=can_fuse(self))
        return schedule_by_step(optimizer, task_lr_factor(hparams, steps))

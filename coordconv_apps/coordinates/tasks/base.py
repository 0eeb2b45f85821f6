"""Base class of the coordinate-transform tasks: evaluation of both sets, the clock, and the optimizer."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import update_bn

from coordconv_apps.coordinates.data import SET_PREFIXES, NotSoClevrData
from coordconv_apps.training.evaluation import EvaluatedTask
from coordconv_apps.training.optimizers import can_fuse, parameter_groups, schedule_by_step
from coordconv_apps.training.schedules import SCHEDULE_RANGES, task_lr_factor
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.utils.argument_checks import (
    BELOW_ONE,
    NON_NEGATIVE,
    POSITIVE,
    POSITIVE_INT,
    at_least,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from numpy.typing import NDArray
    from torch import Tensor

    from coordconv_apps.coordinates.data import NotSoClevrBatch
    from coordconv_apps.coordinates.metrics import SampleMeans
    from coordconv_apps.data.splits import EvaluationSplit
    from coordconv_apps.nn.coords import Coords
    from coordconv_apps.utils.argument_checks import Allowed

CLOCK_KEY = "coordinates_clock"  # in checkpoints
STATISTICS_BATCH = 256  # samples that batch norms see at once when their exact statistics are computed


class CoordinateTask(EvaluatedTask["NotSoClevrBatch", nn.ModuleList], ABC):
    """Base class of the three tasks, which differ in their networks, losses and metrics.

    This class reads the arguments that all three have from ``self.hparams``.

    Args:
        coords: Coordinates that the network sees.

    Raises:
        ValueError: An argument is out of range, or does not go with the others.

    Attributes:
        metric: The metric class of the task.
        perfect_value: The value that the headline metric must reach on both sets for them to be perfect.
        objects: Squares per sample.
    """

    ranges: ClassVar[dict[str, Allowed]] = {  # of both arms: a comparison fails at once or not at all
        "canvas_size": at_least(8),
        "width": POSITIVE_INT,
        "lr": POSITIVE,
        "baseline_lr": POSITIVE,
        "beta2": BELOW_ONE,
        "weight_decay": NON_NEGATIVE,
        "baseline_weight_decay": NON_NEGATIVE,
        "coord_gain": NON_NEGATIVE,
        **SCHEDULE_RANGES,
    }
    metric: ClassVar[type[SampleMeans]]
    perfect_value: ClassVar[float]
    headline: str
    objects: int = 1
    network: nn.Module

    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "baseline_lr", "beta2", "weight_decay", "baseline_weight_decay", "stop_when_perfect"}
        | {"schedule", "warmup", "lr_milestones", "lr_gamma"}
    )

    def __init__(self, coords: Coords) -> None:
        super().__init__(coords)
        hparams = self.hparams
        self.canvas_size: int = hparams["canvas_size"]
        self.square_size: int = hparams["square_size"]
        self.lr: float = hparams[self.arm_argument("lr")]
        self.weight_decay: float = hparams[self.arm_argument("weight_decay")]
        self.val_metrics = nn.ModuleList(self.metric() for _ in SET_PREFIXES)
        self.test_metrics = nn.ModuleList(self.metric() for _ in SET_PREFIXES)
        self.time_to_perfect: dict[str, float] = {}
        self._seconds_before = 0.0  # training time before a resume
        self._started = time.perf_counter()

    def setup(self, stage: str) -> None:
        """Start the clock, and raise `ValueError` if data and network do not agree."""
        self._started = time.perf_counter()
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, NotSoClevrData):
            return
        if data.objects > self.objects and "objects" not in self.hparams:
            raise ValueError(f"data.two_objects=true: must be false for {type(self).__name__}")
        for name, own, there, flag in (
            ("canvas_size", self.canvas_size, data.canvas_size, "canvas_size"),
            ("square_size", self.square_size, data.square_size, "square_size"),
            ("objects", self.objects, data.objects, "two_objects"),
        ):
            if own != there:
                raise ValueError(f"model.{name}={own}: the data have {there} (data.{flag})")

    def forward(self, centers: Tensor) -> Tensor:
        """Return the logits of all pixels, ``(B, H, W)``, for centres in pixels, int64 ``(B, objects, 2)``."""
        logits: Tensor = self.network(centers.flatten(1).to(self.dtype))
        return logits

    @abstractmethod
    def training_loss(self, centers: Tensor) -> Tensor:
        """Return the loss of centres in pixels, int64 ``(B, objects, 2)``, a scalar."""

    def training_step(self, batch: NotSoClevrBatch, batch_idx: int) -> Tensor:
        """Return and log the loss of a batch, a scalar."""
        loss = self.training_loss(batch.centers)
        self.log_train({"train/loss": loss.detach()}, len(batch.centers))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make Adam with an L2 penalty on the weights of layers, and a learning-rate schedule by steps."""
        groups = parameter_groups(self.network, self.weight_decay)
        # Fused: these networks are so small that one call per parameter would take longer than the arithmetic.
        optimizer = torch.optim.Adam(groups, lr=self.lr, betas=(0.9, self.hparams["beta2"]), fused=can_fuse(self))
        factor = task_lr_factor(self.hparams, self.trainer.estimated_stepping_batches)
        return schedule_by_step(optimizer, factor)

    def on_validation_epoch_start(self) -> None:
        """Compute exact statistics for batch norms, if the training asks for them (Wu & Johnson, 2021, section 3)."""
        if self.hparams["exact_batch_norm"] and self.trainer.state.fn == TrainerFn.FITTING:
            centers = attached_datamodule(self.trainer, NotSoClevrData).centers.train
            # Batches of one size in random order: the variance is the mean of that within batches, and neighbours vary
            # less than the whole set.
            order = torch.randperm(len(centers), generator=torch.Generator().manual_seed(0))
            number = math.ceil(len(centers) / STATISTICS_BATCH)
            update_bn(centers[order].tensor_split(number), self, self.device)

    def targets(self, centers: Tensor) -> Tensor:
        """Return the metric's targets: by default the centres themselves."""
        return centers

    def evaluation_step(self, batch: NotSoClevrBatch, metrics: nn.ModuleList, dataloader_idx: int) -> None:
        """Add a batch to the metric of its set: 0 is the test set, 1 the training set."""
        metric = cast("SampleMeans", metrics[dataloader_idx])
        metric.update(self(batch.centers), self.targets(batch.centers))

    def evaluation_metrics(self, metrics: nn.ModuleList, split: EvaluationSplit) -> dict[str, Tensor]:
        """Compute the metrics of both sets over all processes."""
        values: dict[str, Tensor] = {}
        for prefix, metric in zip(SET_PREFIXES, cast("list[SampleMeans]", metrics), strict=True):
            values |= {f"{prefix}{name}": value for name, value in metric.compute().items()}
        return values

    def on_validation_epoch_end(self) -> None:
        """Log the metrics and, during training, the time so far; stop training if both sets are perfect."""
        values = self.evaluation_metrics(self.val_metrics, "val")
        self.log_evaluation(values, "val")
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        seconds = self._seconds()
        self.log("val/seconds", seconds, sync_dist=True, reduce_fx="max")
        name = self.headline.removeprefix("val/")
        perfect = all(self.is_perfect(values[f"{prefix}{name}"].item()) for prefix in SET_PREFIXES)
        if perfect and not self.time_to_perfect:
            self.time_to_perfect = {"time_to_perfect": seconds, "epochs_to_perfect": self.current_epoch + 1.0}
        if self.time_to_perfect:
            self.log_dict(self.time_to_perfect, sync_dist=True, reduce_fx="max")
        if perfect and self.hparams["stop_when_perfect"]:
            self.trainer.should_stop = True

    def read_out(self, outputs: Tensor) -> Tensor:
        """Turn outputs of `forward` into what `predict` returns: by default the outputs themselves."""
        return outputs

    def predict(self, centers: Tensor | NDArray[Any] | Sequence[Any]) -> Tensor:
        """Return the network's answers for centres.

        Args:
            centers: x and y of centres in pixels, integers from 0 to the canvas size minus 1: ``(N, 2)``, or
                ``(N, 2, 2)`` with two objects.

        Returns:
            float32 on the CPU. Classification: the probability that a pixel is the centre, ``(N, H, W)``, with a sum of
            1. Rendering: the probability that a pixel is white, ``(N, H, W)``. Regression: x and y in pixels,
            ``(N, 2)``.

        Raises:
            ValueError: The centres have another shape or range.

        Example:
            >>> from coordconv_apps.coordinates import CoordinateClassification
            >>> task = CoordinateClassification(coords="xy")  # or CoordinateClassification.load_from_checkpoint(path)
            >>> task.predict([(10, 20), (32, 32)]).shape
            torch.Size([2, 64, 64])
        """
        pixels = torch.as_tensor(centers)
        shape, most = tuple(pixels.shape), self.canvas_size - 1
        if shape[1:] not in ((2,), (self.objects, 2)) or (len(shape) == 2 and self.objects > 1):
            wanted = "(N, 2)" if self.objects == 1 else f"(N, {self.objects}, 2)"
            raise ValueError(f"centers of shape {shape}: must be {wanted}")
        whole = pixels.to(torch.int64)  # some of torch's integer types cannot be compared
        if pixels.is_floating_point() or pixels.is_complex() or not ((whole >= 0) & (whole <= most)).all():
            raise ValueError(f"centers={pixels.tolist()}: must be integers from 0 to {most}")
        with self.inference():
            answers = self(whole.to(self.device).view(-1, self.objects, 2))
            return self.read_out(answers.float()).cpu()

    def is_perfect(self, value: float) -> bool:
        """Return whether a value of the headline metric is perfect; a distance must be below ``perfect_value``."""
        return value >= self.perfect_value if self.monitor_mode == "max" else value < self.perfect_value

    def _seconds(self) -> float:
        """Return the seconds of training so far, including those before an interruption."""
        return self._seconds_before + time.perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the training time so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CLOCK_KEY] = {"seconds": self._seconds(), "perfect": self.time_to_perfect}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training time."""
        super().on_load_checkpoint(checkpoint)
        clock = checkpoint.get(CLOCK_KEY, {"seconds": 0.0, "perfect": {}})
        self._seconds_before, self.time_to_perfect = clock["seconds"], dict(clock["perfect"])

    def export_module(self) -> nn.Module:
        """Return the network: centres ``(B, 2 * objects)`` or one-hot images ``(B, 1, H, W)`` in, as in `models`."""
        return self.network

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface(
            inputs={"centers": "x and y of each object's centre in pixels, from 0 to the canvas size minus 1"},
            outputs={"logits": "of each pixel (y, x)"},
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two samples in the middle of the canvas."""
        return (self.middle().flatten(1).float(),)

    def middle(self) -> Tensor:
        """Return the centres of two samples in the middle of the canvas, int64 ``(2, objects, 2)``."""
        return torch.full((2, self.objects, 2), self.canvas_size // 2, device=self.device)

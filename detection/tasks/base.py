"""What the detection methods share: evaluation, prediction, the optimizer and its schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.evaluation import EvaluatedTask, Stage
from coordconv_apps.training.optimizers import can_fuse, schedule_by_step
from coordconv_apps.training.schedules import Schedule, check_schedule, lr_factor
from detection.boxes import Detections, Found
from detection.data import DetectionBatch, DetectionData, ImageBatch
from detection.metrics import EvaluationMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.utilities.types import OptimizerLRScheduler

Optimizer = Literal["adam", "adamw", "sgd"]


class DetectionTask(EvaluatedTask[DetectionBatch, EvaluationMetrics], ABC):
    """Base of the detection methods.

    A subclass builds ``network``, ``val_metrics`` and ``test_metrics``, and implements `losses`, `find`, `legend` and
    `captions`.

    Args:
        coords: Coordinates that the network sees.
        optimizer: Update rule.
        lr: Peak learning rate, above 0.
        momentum: Momentum of SGD, or beta1 of Adam.
        beta2: Decay of Adam's second moment.
        weight_decay: L2 penalty of "adam" and "sgd", decoupled weight decay of "adamw".
        schedule: Learning rate schedule.
        warmup: Share of the training over which the learning rate rises to its peak.
        lr_milestones: Shares of the training at which "step" multiplies the learning rate.
        lr_gamma: Factor of "step".

    Raises:
        ValueError: If an argument is out of range.
    """

    canvas_size: Tensor
    network: nn.Module

    precisions: ClassVar[tuple[str, ...]] = ("32-true", "16-mixed", "bf16-mixed")  # boxes need float32
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "momentum", "beta2", "weight_decay", "schedule", "warmup", "lr_milestones", "lr_gamma"}
    )

    def __init__(
        self,
        coords: Coords,
        *,
        optimizer: Optimizer,
        lr: float,
        momentum: float,
        beta2: float,
        weight_decay: float,
        schedule: Schedule,
        warmup: float,
        lr_milestones: list[float] | None,
        lr_gamma: float,
    ) -> None:
        super().__init__(coords)
        if lr <= 0:
            raise ValueError(f"lr={lr}: must be above 0")
        check_schedule(warmup, lr_milestones or [], lr_gamma)
        self.optimizer, self.lr, self.momentum, self.beta2 = optimizer, lr, momentum, beta2
        self.weight_decay = weight_decay
        self.schedule, self.warmup, self.lr_milestones, self.lr_gamma = schedule, warmup, lr_milestones or [], lr_gamma
        # Height and width of the training canvases; exported networks are made for this size.
        self.register_buffer("canvas_size", torch.tensor([64, 64]))

    def setup(self, stage: str) -> None:
        """Store the size of the training canvases.

        Args:
            stage: "fit", "validate", "test" or "predict".
        """
        data = self.attached_data()
        if stage == "fit" and data is not None:
            self.canvas_size.fill_(data.settings.image_size)

    def attached_data(self) -> DetectionData | None:
        """Return the trainer's data module, or None if it is of another class: the task works with any batches."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, DetectionData) else None

    # ------------------------------------------------------------- methods of a subclass

    @abstractmethod
    def losses(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return the parts of the training loss by name, scalars whose sum is minimised."""

    @abstractmethod
    def find(self, images: Tensor) -> Found:
        """Find objects in images ``(B, 1, H, W)`` in [0, 1], in evaluation mode."""

    def kept(self, detections: Detections) -> Detections:
        """Return those detections of an image that are drawn and predicted: all of them by default."""
        return detections

    @property
    @abstractmethod
    def legend(self) -> str:
        """What the boxes are that `kept` returns, for the legend of a picture."""

    def category_names(self, class_names: Sequence[str]) -> Sequence[str]:
        """Return the name of each label, given the names of the data's classes."""
        return class_names

    @abstractmethod
    def captions(self, detections: Detections, class_names: Sequence[str]) -> list[str]:
        """Return the text beside each box in a picture; it may be empty."""

    # ------------------------------------------------------ train, validate, test, predict

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            batch: Canvases with their true boxes.
            batch_idx: Not used.
        """
        loss = torch.stack(list(self.losses(batch).values())).sum()
        self.log_train({"train/loss": loss.detach()}, len(batch["images"]))
        return loss

    def evaluation_step(self, batch: DetectionBatch, metrics: EvaluationMetrics, dataloader_idx: int) -> None:
        """Find the objects of a batch and add them to the metrics."""
        metrics.update(self.find(batch["images"]), batch["targets"])

    def evaluation_metrics(self, metrics: EvaluationMetrics, stage: Stage) -> dict[str, Tensor]:
        """Compute the metrics of an evaluation over all processes, and reset them."""
        return metrics.compute()

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> list[Detections]:
        """Find objects in images of any size, one by one.

        Args:
            batch: Images.
            batch_idx: Not used.

        Returns:
            The kept detections of each image.
        """
        return [self.kept(self.find(image[None]).detections[0]) for image in batch["images"]]

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two canvases ``(2, 1, H, W)`` in [0, 1], of the size that the network was trained on."""
        height, width = self.canvas_size.tolist()
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(2, 1, height, width, generator=generator).to(self.device),)

    # ------------------------------------------------------------------------ optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, and the learning rate schedule that is applied after every step."""
        fused = self.device.type == "cpu" and can_fuse(self)  # half a millisecond less per step
        shared: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": fused}
        parameters = self.network.parameters()
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=self.momentum, **shared)
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer]
            optimizer = kind(parameters, betas=(self.momentum, self.beta2), **shared)
        factor = lr_factor(
            self.schedule,
            self.trainer.estimated_stepping_batches,
            warmup=self.warmup,
            milestones=self.lr_milestones,
            gamma=self.lr_gamma,
        )
        return schedule_by_step(optimizer, factor)

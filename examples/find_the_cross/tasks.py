"""The task: a network that returns the position of the cross."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from coordconv_apps import to_coordconv
from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.evaluation import EvaluatedTask
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.argument_checks import POSITIVE, POSITIVE_INT, Allowed

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from examples.find_the_cross.data import CrossBatch


class FindTheCross(EvaluatedTask["CrossBatch", MeanMetric]):
    """Find the position of the cross with convolutions and a maximum over the image.

    This docstring is the help of the command line.

    Args:
        coords: Coordinates that the last convolution sees: "none", "xy", or "xyr" with the distance from the centre.
        width: Number of channels.
        size: Height and width of the images, in pixels; on the command line by default that of the data.
        lr: Learning rate of Adam, above 0.
    """

    monitor: ClassVar[str] = "val/distance"  # selects checkpoints/best.ckpt
    monitor_mode = "min"
    args_from_data: ClassVar[frozenset[str]] = frozenset({"size"})
    ranges: ClassVar[dict[str, Allowed]] = {"width": POSITIVE_INT, "size": POSITIVE_INT, "lr": POSITIVE}

    def __init__(self, coords: Coords = "none", width: int = 16, size: int | None = None, lr: float = 0.003) -> None:
        super().__init__(coords)  # saves all arguments in self.hparams, and checks their ranges
        if size is None:
            raise ValueError("model.size=null: must be the height and width of the images, in pixels")
        self.size = size
        self.lr = lr
        self.network = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, 2),
        )
        # Both arms start from the same weights: a plain network is built, and converted where there are coordinates.
        if coords != "none":
            to_coordconv(self.network, where="4", coords=coords)
        self.val_metrics, self.test_metrics = MeanMetric(), MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Return x and y of the cross as fractions of the image, ``(B, 2)``, for images ``(B, 1, H, W)``."""
        positions: Tensor = self.network(images)
        return positions

    def training_step(self, batch: CrossBatch, batch_idx: int) -> Tensor:
        """Return and log the mean squared error of the position."""
        images, positions = batch
        loss: Tensor = (self(images) - positions / self.size).square().mean()
        self.log_train({"train/loss": loss}, len(images))
        return loss

    def evaluation_step(self, batch: CrossBatch, metrics: MeanMetric, dataloader_idx: int) -> None:
        """Add the distance of each position from the truth, in pixels."""
        images, positions = batch
        metrics.update((self(images) * self.size - positions).norm(dim=1))

    def evaluation_metrics(self, metrics: MeanMetric, split: EvaluationSplit) -> dict[str, Tensor]:
        """Return the mean distance over all processes."""
        return {"distance": metrics.compute()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create Adam with a learning rate that falls to 0 over the training."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ``export`` needs these three.

    def export_module(self) -> nn.Module:
        """Return the network."""
        return self.network

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two black images."""
        return (torch.zeros(2, 1, self.size, self.size, device=self.device),)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface({"images": "0 to 1"}, {"positions": "x and y of the cross as fractions of the image"})

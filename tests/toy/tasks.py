"""The toy application's tasks."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torchmetrics import MeanMetric

from coordconv_apps import to_coordconv
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.pictures import Pictures
from coordconv_apps.training.task import ExportInterface, Task
from coordconv_apps.utils.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from tests.toy.data import ToyBatch


class DotTask(Task, ABC):
    """Base task: the trouble, the shared step and the distance metric.

    Args:
        coords: Which coordinates the network sees.
        lr: Learning rate at the beginning.
        trouble: For tests: ``kind@place``, such as ``SIGINT@train7``. The kinds are ``error``, ``error-on-1`` (on the
            second process only), ``mistake-on-1`` (the user's), ``SIGINT``, ``SIGTERM``, ``SIGUSR1`` and
            ``sleep``; a place is ``train`` or ``val`` and the number of a batch, counted over all epochs.
    """

    monitor: ClassVar[str] = "val/distance"
    monitor_mode = "min"
    net: nn.Module

    def __init__(self, coords: Coords, lr: float, trouble: str | None) -> None:
        super().__init__(coords)
        self.lr = lr
        self.trouble = trouble
        self.val_distance = MeanMetric()
        self.seen = {"train": 0, "val": 0}

    @abstractmethod
    def _step(self, batch: ToyBatch) -> tuple[Tensor, Tensor]:
        """Return the loss, and the distance ``(B,)`` of each predicted position from the dot."""

    def training_step(self, batch: ToyBatch, batch_idx: int) -> Tensor:
        self._make_trouble("train")
        loss, _ = self._step(batch)
        self.log_train({"train/loss": loss}, len(batch[0]))
        return loss

    def validation_step(self, batch: ToyBatch, batch_idx: int) -> None:
        self._make_trouble("val")
        self.val_distance(self._step(batch)[1])
        self.log("val/distance", self.val_distance, on_epoch=True)

    def test_step(self, batch: ToyBatch, batch_idx: int) -> None:
        self.val_distance(self._step(batch)[1])
        self.log("test/distance", self.val_distance, on_epoch=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.97**step)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _make_trouble(self, place: str) -> None:
        kind, _, wanted = (self.trouble or "").partition("@")
        self.seen[place] += 1
        if wanted != f"{place}{self.seen[place]}":
            return
        if kind == "error" or (kind == "error-on-1" and self.global_rank == 1):
            raise ValueError("a defect\nof the program")
        if kind == "mistake-on-1" and self.global_rank == 1:
            raise UserError("an image that only this process reads")
        if kind == "sleep":
            time.sleep(600)
        elif kind.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[kind])


class ToyTask(DotTask):
    """Find the dot by regression.

    Args:
        coords: Which coordinates the network sees.
        width: Channels.
        dropout: Share of the channels left out in training, in [0, 1).
        lr: Learning rate at the beginning.
        size: Height and width of the images that the network is exported for, in pixels.
        trouble: As `DotTask`'s.

    Raises:
        ValueError: The width is not positive.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset({"lr", "dropout", "trouble"})
    net: nn.Sequential

    def __init__(
        self,
        coords: Coords = "none",
        width: int = 4,
        dropout: float = 0.2,
        lr: float = 0.01,
        size: int = 8,
        trouble: str | None = None,
    ) -> None:
        super().__init__(coords, lr, trouble)
        if width < 1:
            raise ValueError(f"model.width={width}: must be an integer of at least 1")
        self.size = size
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(width, 2, 3, padding=1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        if coords != "none":
            to_coordconv(self.net, "first", coords, init="default")

    def forward(self, images: Tensor) -> Tensor:
        """Positions ``(B, 2)`` for images ``(B, 1, H, W)``."""
        positions: Tensor = self.net(images)
        return positions

    def _step(self, batch: ToyBatch) -> tuple[Tensor, Tensor]:
        images, positions = batch
        error = self(images) - positions
        return error.square().mean(), error.norm(dim=1)

    def predict_step(self, batch: ToyBatch, batch_idx: int) -> Tensor:
        positions: Tensor = self(batch[0])
        return positions

    def export_module(self) -> nn.Module:
        return self.net

    def export_interface(self) -> ExportInterface:
        return ExportInterface({"images": "in [0, 1]"}, {"positions": "of the dot"}, {0: "Punkt", 7: "점"})

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.rand(2, 1, self.size, self.size, generator=torch.Generator().manual_seed(0)),)


class ToyHeatmap(DotTask):
    """Find the dot as the expected position under a heat map.

    Args:
        coords: Which coordinates the network sees.
        lr: Learning rate at the beginning.
        temperature: What the heat map's logits are divided by.
        trouble: As `DotTask`'s.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset({"temperature"})

    def __init__(
        self, coords: Coords = "none", lr: float = 0.05, temperature: float = 1.0, trouble: str | None = None
    ) -> None:
        super().__init__(coords, lr, trouble)
        self.temperature = temperature
        self.net = nn.Conv2d(1, 1, 3, padding=1)
        if coords != "none":
            self.net = to_coordconv(nn.Sequential(self.net), "first", coords, init="default")

    def forward(self, images: Tensor) -> Tensor:
        """Positions ``(B, 2)`` for images ``(B, 1, H, W)``."""
        heat = (self.net(images) / self.temperature).flatten(1).softmax(1).view_as(images)[:, 0]
        grid = torch.linspace(-1, 1, images.shape[-1], device=images.device)
        return torch.stack([heat.sum(1) @ grid, heat.sum(2) @ grid], dim=1)

    def _step(self, batch: ToyBatch) -> tuple[Tensor, Tensor]:
        error = self(batch[0]) - batch[1]
        return error.square().mean(), error.norm(dim=1)


class ToyPictures(Pictures):
    """Draws the first test image.

    Args:
        every_n_epochs: How often.
    """

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        image: Any = torch.rand(8, 8) * 255
        return {"dot": Image.fromarray(image.byte().numpy())}

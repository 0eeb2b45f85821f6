"""Base callback that collects predictions and writes them to a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from coordconv_apps.utils.distributed import gather_ranks

T = TypeVar("T")


class PredictionWriter(Callback, ABC, Generic[T]):
    """Write the predictions of all processes at the end of ``predict``.

    If an error or an interruption ends it, each process writes its own predictions so far. A subclass adds items to
    ``collected`` in ``on_predict_batch_end``, and implements `write`.
    """

    def __init__(self) -> None:
        self.collected: list[T] = []

    @abstractmethod
    def write(self, trainer: Trainer, task: LightningModule, items: list[T], suffix: str) -> None:
        """Write items to a file, and print its path; the stem of its name ends in ``suffix``, which may be empty."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the items of an earlier prediction."""
        self.collected = []

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the items of all processes."""
        gathered = gather_ranks(self.collected)
        self.collected = []
        if trainer.is_global_zero:
            self.write(trainer, pl_module, [item for own in gathered for item in own], "")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the items of this process so far."""
        if trainer.predicting and self.collected:
            suffix = "" if trainer.is_global_zero else f"_{trainer.global_rank}"
            self.write(trainer, pl_module, self.collected, suffix)

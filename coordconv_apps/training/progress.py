"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class BarProgress(TQDMProgressBar):
    """Progress as a bar, for a terminal."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What the bar shows: Lightning's choice but for the logger's version, which the folder's name tells."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class PlainProgress(ProgressBar):
    """Progress as plain lines, for where there is no terminal: one for each epoch, and one when time has passed.

    Args:
        seconds: How long to be silent at most, in seconds.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._over = ""  # the epoch that is over, and not told of yet
        self._started = self._spoke = time.monotonic()

    def disable(self) -> None:
        """Is silent from now on; Lightning calls this on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speaks again."""
        self._enabled = True

    def _say(self, *words: str) -> None:
        if self._enabled:
            self._spoke = time.monotonic()
            print(f"[{self._spoke - self._started:7.1f} s]", *(w for w in words if w), flush=True)

    def _now_and_then(self, stage: str, batch: int, batches: float) -> None:
        if time.monotonic() - self._spoke >= self.seconds:
            self._say(stage, f"batch {batch}" if batches == float("inf") else f"batch {batch}/{batches:.0f}")

    def _epoch(self, trainer: Trainer) -> str:
        last = trainer.max_epochs
        number = trainer.current_epoch + 1
        return f"epoch {number}" if last is None or last < 0 else f"epoch {number}/{last}"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = self._spoke = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Tells, when time has passed, how far the epoch is."""
        self._now_and_then(self._epoch(trainer), batch_idx + 1, self.total_train_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells, when time has passed, how far the validation is."""
        if self.has_dataloader_changed(dataloader_idx):
            return
        self._now_and_then("validating", batch_idx + 1, self.total_val_batches_current_dataloader)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells, when time has passed, how far the test is."""
        if self.has_dataloader_changed(dataloader_idx):
            return
        self._now_and_then("testing", batch_idx + 1, self.total_test_batches_current_dataloader)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells, when time has passed, how far the prediction is."""
        if self.has_dataloader_changed(dataloader_idx):
            return
        self._now_and_then("predicting", batch_idx + 1, self.total_predict_batches_current_dataloader)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that an epoch is over; its metrics are complete only after this."""
        self._over = self._epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of the epoch that is over, and its metrics."""
        if self._over:
            self._say(self._over, *(f"{name} {value:.4g}" for name, value in epoch_metrics(trainer).items()))
            self._over = ""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of the last epoch."""
        self.on_train_epoch_start(trainer, pl_module)


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """The metrics logged last, of a batch's values only those that have no mean over the epoch, sorted by name."""
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {name: metrics[name] for name in sorted(metrics) if not name.endswith("_step")}


def is_terminal() -> bool:
    """Whether somebody looks at the output as it comes."""
    return sys.stdout.isatty()

"""Show the progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import convert_inf

from coordconv_apps.training.task import Task


class BarProgress(TQDMProgressBar):
    """Progress bar for a terminal, with the metric that selects the best checkpoint."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401  # Lightning's
        """Start the bar of an epoch; epochs are counted from 1, as in the summary."""
        self.train_progress_bar.reset()
        self.train_progress_bar.total = convert_inf(self.total_train_batches)
        self.train_progress_bar.set_description(epoch_position(trainer))

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return Lightning's metrics without the version number of the run, and the latest of the task's `monitor`."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if isinstance(pl_module, Task) and (value := trainer.callback_metrics.get(pl_module.monitor)) is not None:
            metrics[pl_module.monitor] = value.item()
        return metrics


class PlainProgress(ProgressBar):
    """Progress as plain lines where there is no terminal: one for each epoch, and one after each interval."""

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds  # longest interval without a line
        self._enabled = True
        self._over = ""  # the finished epoch that is not printed yet
        self._validated = False  # whether there was a validation since the last line of an epoch
        self._started = self._printed = time.monotonic()

    def disable(self) -> None:
        """Print nothing: Lightning calls this on all processes but rank 0."""
        self._enabled = False

    def _print(self, *words: str) -> None:
        if self._enabled:
            self._printed = time.monotonic()
            print(f"[{self._printed - self._started:7.1f} s]", *(w for w in words if w), flush=True)

    def _print_after_interval(self, stage: str, batch: int, batches: float) -> None:
        if time.monotonic() - self._printed >= self.seconds:
            self._print(stage, f"batch {batch}" if batches == float("inf") else f"batch {batch}/{batches:.0f}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = self._printed = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Print the position in the epoch, after each interval."""
        self._print_after_interval(epoch_position(trainer), batch_idx + 1, self.total_train_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print the position in a validation, a test or a prediction, after each interval."""
        if self.has_dataloader_changed(dataloader_idx):
            return
        if trainer.testing:
            stage, batches = "testing", self.total_test_batches_current_dataloader
        elif trainer.predicting:
            stage, batches = "predicting", self.total_predict_batches_current_dataloader
        else:
            stage, batches = "validating", self.total_val_batches_current_dataloader
        self._print_after_interval(stage, batch_idx + 1, batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that there are new validation metrics."""
        self._validated = True

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record that an epoch is over; its metrics are complete only after this."""
        self._over = epoch_position(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the previous epoch with its metrics; those of an earlier validation are left out."""
        if self._over:
            metrics = epoch_metrics(trainer)
            chosen = pl_module.epoch_line if isinstance(pl_module, Task) and pl_module.epoch_line else metrics
            own = [name for name in chosen if name in metrics and (self._validated or not name.startswith("val/"))]
            self._print(self._over, *(f"{name} {metrics[name]:.4g}" for name in own))
            self._over, self._validated = "", False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch."""
        self.on_train_epoch_start(trainer, pl_module)


def epoch_position(trainer: Trainer) -> str:
    """Return the current epoch, counted from 1, such as ``"epoch 3/10"``."""
    last, number = trainer.max_epochs, trainer.current_epoch + 1
    return f"epoch {number}" if last is None or last < 0 else f"epoch {number}/{last}"


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the latest metrics, without values of single batches, sorted by name."""
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {name: metrics[name] for name in sorted(metrics) if not name.endswith("_step")}

"""What a run shows of itself: pictures, progress and the table at its end."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback, ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng

from coordconv_apps.running.runs import run_dir, written_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from PIL.Image import Image

FLOOR = "/floor/"
"""In the name of a metric: what the metric without it is for real data compared with real data."""


class Pictures(Callback):
    """Draws pictures: during ``fit`` and at its end, and at the end of ``validate`` and ``test``.

    Each is written to ``pictures/<name>.png`` in the run's folder, over the one before, and to TensorBoard. A
    subclass implements `draw`. Drawing happens on the first process only, with the network in evaluation mode and
    without gradients, and takes nothing from the global random number generators.

    Args:
        every_n_epochs: How often to draw during ``fit``; 0 draws at its end only.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 0:
            raise ValueError(f"every_n_epochs={every_n_epochs}: must be an integer of at least 0")
        self.every_n_epochs = every_n_epochs
        self._drawn_step = -1

    @abstractmethod
    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image]:
        """Draws the pictures.

        Args:
            task: The application's task, on its device.
            datamodule: The application's data, set up for the current command.

        Returns:
            Pictures by name, a file name without its ending.
        """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws every `every_n_epochs` epochs."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws what the training has come to."""
        self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws at the end of ``validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws at the end of ``test``."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.is_global_zero or self._drawn_step == trainer.global_step:
            return
        self._drawn_step = trainer.global_step
        datamodule: LightningDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        training = [module for module in task.modules() if module.training]
        try:
            with torch.no_grad(), isolate_rng():
                pictures = self.draw(task.eval(), datamodule)
        finally:
            for module in training:
                module.training = True
        for name, picture in pictures.items():
            with written_aside(run_dir(trainer) / "pictures" / f"{name}.png", "wb") as file:
                picture.save(file, format="PNG")
        self._to_tensorboard(trainer, pictures)

    @staticmethod
    def _to_tensorboard(trainer: Trainer, pictures: Mapping[str, Image]) -> None:
        from torchvision.transforms.v2.functional import pil_to_tensor

        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name, picture in pictures.items():
                    image = pil_to_tensor(picture.convert("RGB"))
                    logger.experiment.add_image(f"pictures/{name}", image, trainer.global_step)


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


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Lines of columns, aligned: names, and values (numbers with five significant digits).

    Args:
        rows: The cells of each line; a line may end early.
    """
    texts = [[f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    columns = range(max((len(row) for row in texts), default=0))
    widths = [max((len(row[i]) for row in texts if i < len(row) - 1), default=0) for i in columns]
    return "\n".join("".join(f"  {c:<{w}}" for c, w in zip(row, widths, strict=False)).rstrip() for row in texts)


def beside_floors(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Each metric and its floor: what ``test/floor/name`` is to ``test/name``, or None.

    Args:
        metrics: Values by name, with or without floors.

    Returns:
        Name, value and floor, without rows for the floors themselves.
    """
    floors = {name.replace(FLOOR, "/", 1): value for name, value in metrics.items() if FLOOR in name}
    alone = [name for name in metrics if FLOOR not in name or name.replace(FLOOR, "/", 1) not in metrics]
    return [(name, metrics[name], floors.get(name)) for name in alone]


def is_terminal() -> bool:
    """Whether somebody looks at the output as it comes."""
    return sys.stdout.isatty()

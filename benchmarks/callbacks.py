"""Callbacks that time the training steps of a command: ``--trainer.callbacks=benchmarks.callbacks.ExitAfterStep``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class ExitAfterStep(Callback):
    """End the process right after the first training step: how long it ran is the time to that step."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Exit with status 0, without saving anything."""
        os._exit(0)


class TimeSteps(Callback):
    """Write the mean seconds of a training step, loading included, to a file, and end all processes of the command.

    The first step of each epoch does not count: pictures and checkpoints come before it.

    Args:
        file: Where the first process writes the number.
        steps: Number of steps that count.
        warmup: Number of steps before them.
    """

    def __init__(self, file: str, steps: int, warmup: int = 3) -> None:
        self.file, self.steps, self.warmup = Path(file), steps, warmup
        self.intervals: list[float] = []
        self.ended = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Note the time since the end of the step before; exit after the last one."""
        before, self.ended = self.ended, time.perf_counter()
        if batch_idx > 0:
            self.intervals.append(self.ended - before)
        if len(self.intervals) == self.warmup + self.steps:
            if trainer.is_global_zero:
                self.file.write_text(str(sum(self.intervals[self.warmup :]) / self.steps), encoding="utf-8")
            trainer.strategy.barrier()  # no process ends while another one still receives its gradients
            os._exit(0)

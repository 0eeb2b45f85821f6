"""A callback that tells a test what a command is doing, and makes it take longer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

Phase = Literal["start", "train", "val", "save", "test"]


class Phases(Callback):
    """Create the file ``<folder>/<phase>`` in each step of a phase, and wait a moment in those of one phase.

    Args:
        folder: Folder of the files.
        slow: Phase to wait in.
        seconds: Seconds to wait in each of its steps.
    """

    def __init__(self, folder: str, slow: Phase = "start", seconds: float = 0.3) -> None:
        self.folder, self.slow, self.seconds = Path(folder), slow, seconds

    def _enter(self, phase: Phase) -> None:
        (self.folder / phase).touch()
        if phase == self.slow:
            time.sleep(self.seconds)

    def on_train_batch_start(self, trainer: Trainer, *unused: object) -> None:
        if trainer.current_epoch > 0:  # there is a checkpoint by now
            self._enter("train")

    def on_validation_batch_start(self, trainer: Trainer, *unused: object) -> None:
        self._enter("val")

    def on_test_batch_start(self, *unused: object) -> None:
        self._enter("test")

    def on_save_checkpoint(self, *unused: object) -> None:
        self._enter("save")

"""A callback that records what a training takes of the machine."""

from __future__ import annotations

import csv
import gc
import os
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

PAGE = os.sysconf("SC_PAGE_SIZE")


class Footprint(Callback):
    """Append the resident memory in MiB, open files and threads to a CSV file, on Linux.

    Args:
        path: The file.
        every: Number of training steps between two rows.
    """

    def __init__(self, path: str, every: int = 50) -> None:
        self.path, self.every, self.steps = Path(path), every, 0

    def on_train_batch_end(self, trainer: Trainer, *unused: object) -> None:
        self.steps += 1
        if self.steps % self.every:
            return
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
        files, threads = (len(os.listdir(f"/proc/self/{folder}")) for folder in ("fd", "task"))
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([self.steps, resident, files, threads])

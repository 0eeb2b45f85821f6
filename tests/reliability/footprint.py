"""Callbacks that record what a training takes of the machine, and that leak memory."""

from __future__ import annotations

import csv
import ctypes
import gc
import os
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> float:
    """Return the resident memory in MiB, on Linux, without what is freed.

    Commands keep freed memory for the next batches (`coordconv_apps.utils.memory`). It is returned to the system first:
    how much of it there is depends on the order of blocks in the heap, and may rise without more memory in use.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


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
        files, threads = (len(os.listdir(f"/proc/self/{folder}")) for folder in ("fd", "task"))
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([self.steps, resident_memory(), files, threads])


class LeakingFootprint(Footprint):
    """Leak memory in each step, too."""

    def __init__(self, path: str, every: int = 50, leak: int = 20 * 1024) -> None:
        super().__init__(path, every)
        self.leak, self.leaked = leak, list[bytes]()

    def on_train_batch_end(self, trainer: Trainer, *unused: object) -> None:
        self.leaked.append(os.urandom(self.leak))
        super().on_train_batch_end(trainer)

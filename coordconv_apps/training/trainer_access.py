"""Typed access to attributes that a trainer has but does not declare."""

from __future__ import annotations

from typing import TypeVar

from lightning.pytorch import Trainer

from coordconv_apps.data.loaders import TrainLoader

T = TypeVar("T")


def attached_datamodule(trainer: Trainer, kind: type[T]) -> T:
    """Return the data module that the trainer runs with; raise `TypeError` unless it is of the class ``kind``."""
    datamodule = getattr(trainer, "datamodule", None)
    if not isinstance(datamodule, kind):
        raise TypeError(f"the trainer must run with a data module of class {kind.__name__}, got {datamodule!r}")
    return datamodule


def log_interval(trainer: Trainer) -> int:
    """Return the number of steps between two logs: the trainer's ``log_every_n_steps``."""
    steps: int = getattr(trainer, "log_every_n_steps", 50)
    return steps


def batch_share(trainer: Trainer) -> float:
    """Return this process's number of samples in the current step, as a multiple of the mean over the processes."""
    loader = trainer.train_dataloader
    return loader.batches.share(trainer.fit_loop.batch_idx) if isinstance(loader, TrainLoader) else 1.0


def only_checks_code(trainer: Trainer) -> bool:
    """Return whether this is a ``fast_dev_run`` or a sanity check: a few batches, whose metrics do not matter."""
    return bool(getattr(trainer, "fast_dev_run", False)) or trainer.sanity_checking


def complete_epochs(trainer: Trainer) -> int:
    """Return the number of complete epochs; ``trainer.current_epoch`` also counts one within which training stopped."""
    progress, last = trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress
    stopped_within = progress.completed == progress.ready and last.current.ready > 0 and not last.is_last_batch
    return progress.completed - stopped_within

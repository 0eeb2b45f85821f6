"""Typed access to what a trainer has, but does not declare: its data module and its callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import Callback

T = TypeVar("T")


def attached_datamodule(trainer: Trainer, kind: type[T]) -> T:
    """Return the data module that the trainer runs with.

    Args:
        trainer: The trainer.
        kind: Class that the data module must have, such as `coordconv_apps.data.datamodule.DataModule`.

    Raises:
        TypeError: The trainer has no data module, or one of another class.
    """
    datamodule = getattr(trainer, "datamodule", None)
    if not isinstance(datamodule, kind):
        raise TypeError(f"the trainer must run with a data module of class {kind.__name__}, got {datamodule!r}")
    return datamodule


def attached_callbacks(trainer: Trainer) -> list[Callback]:
    """Return the trainer's callbacks."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return callbacks


def log_interval(trainer: Trainer) -> int:
    """Return after how many steps the trainer logs: its ``log_every_n_steps``."""
    steps: int = getattr(trainer, "log_every_n_steps", 50)
    return steps

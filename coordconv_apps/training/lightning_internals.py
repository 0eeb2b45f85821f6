"""Private attributes of Lightning that this package needs, because no public way exists.

Checked with Lightning 2.6.6; ``tests/training/test_lightning_internals.py`` fails if a version changes one of them.
`coordconv_apps.training.weight_averaging` also overrides private methods of the callback that it derives from.
"""

from __future__ import annotations

import subprocess
from typing import Any

from lightning.pytorch import Trainer


def set_default_root_dir(trainer: Trainer, folder: str) -> None:
    """Replace the trainer's ``default_root_dir``, a property without a setter."""
    trainer._default_root_dir = folder  # type: ignore[attr-defined]  # declared nowhere


def load_loader_state(trainer: Trainer) -> None:
    """Load the training loader's state from the checkpoint, unless Lightning has done so.

    Lightning has not if a task reads ``estimated_stepping_batches``: it sets up the loader before states are restored.
    """
    trainer.fit_loop._load_combined_loader_states()


def mark_as_not_restarting(trainer: Trainer) -> None:
    """Tell the loop over epochs, but not the loops within, that a resumed epoch is over.

    The public setter ``fit_loop.restarting`` also changes the inner loops. Without this call Lightning takes every
    epoch of a resumed run with ``max_steps`` for an interrupted one, and omits a step of ``ReduceLROnPlateau``.
    """
    trainer.fit_loop._restarting = False


def logs_this_step(trainer: Trainer) -> bool:
    """Return whether Lightning writes the values of this training step to the loggers."""
    return trainer._logger_connector.should_update_logs


def epoch_log_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the metrics of the epoch that ends; 0 outside of a training.

    ``trainer.global_step`` counts the steps of all optimizers, and is one ahead.
    """
    return max(trainer.fit_loop.epoch_loop._batches_that_stepped - 1, 0)


def batches_that_stepped(loops: dict[str, Any]) -> int:
    """Return Lightning's step for logging from the ``loops`` of a checkpoint: ``trainer.global_step`` counts others."""
    batches: int = loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    return batches


def rewind_to_batch_end(loops: dict[str, Any]) -> None:
    """Change the ``loops`` of a checkpoint from after a batch to within its ``on_train_batch_end``.

    From there Lightning resumes with the next batch, without another validation and with the right step for logging.
    """
    for count in ("total", "current"):
        loops["fit_loop"]["epoch_loop.batch_progress"][count]["completed"] -= 1
    loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def launched_processes(trainer: Trainer) -> list[subprocess.Popen[bytes]]:
    """Return the list in which the launcher keeps the processes that it started; empty for other launchers.

    It is the list itself: Lightning's observer watches the processes in it, and kills this one if one of them fails.
    """
    processes: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    return processes

"""``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt``, and stopping so that a run can go on exactly.

A checkpoint is written at one of four places, where all that training depends on is in it:

- ``epoch``: an epoch is completely over (``last.ckpt``, after each).
- ``batch``: a batch is over, and neither a validation nor the end of the epoch comes next (an interruption).
- ``validation``: in a validation that is interrupted; it is done again from its beginning.
- ``validated``: right after a validation (``best.ckpt``).

Lightning's own loops know how to go on from ``batch`` and ``validated``. For the two others, `Checkpoints` writes the
loops' progress into the checkpoint the way that Lightning resumes correctly from.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.signals import Interrupted, Interrupts
from coordconv_apps.training.trainer_access import attached_callbacks

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer

    from coordconv_apps.training.task import Task

Place = Literal["epoch", "batch", "validation", "validated"]


class RunState(TypedDict):
    """What a checkpoint holds under ``"run"``."""

    place: Place | None  # None: written by somebody else, such as a ModelCheckpoint of the user's own
    epochs: int  # trained in full
    log_step: int  # the last step whose logged metrics belong to this checkpoint
    metrics: dict[str, float]  # as logged last
    best: dict[str, Any] | None  # metric, value and epoch of best.ckpt
    config: dict[str, Any]  # the command's configuration: plain values


class Checkpoints(Checkpoint):
    """Writes ``best.ckpt`` and ``last.ckpt``, and stops a training that was asked to stop.

    Without any validation, ``best.ckpt`` is that of the last epoch.

    Args:
        interrupts: Knows whether a signal asked to stop. None: nobody asks.
        config: The command's configuration, to keep in each checkpoint: plain values only.
    """

    def __init__(self, interrupts: Interrupts | None = None, config: dict[str, Any] | None = None) -> None:
        self.interrupts = interrupts if interrupts is not None else Interrupts()
        self.config = config if config is not None else {}
        self.best: dict[str, Any] | None = None
        self._restored: RunState | None = None
        self._place: Place | None = None
        self._saved: tuple[int, Place | None] = (0, "epoch")
        self._stop = 0
        self._group: Any = None  # for `_asked_to_stop`; None is the default group

    # ------------------------------------------------------------- in training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals, and puts back the loader's place and the metrics logged last."""
        # A task that asks how long the training is makes Lightning set the loader up too early to put this back.
        trainer.fit_loop._load_combined_loader_states()
        if trainer.world_size > 1 and torch.distributed.get_backend() != "gloo":
            # To ask all processes whether to stop must not wait for the GPU.
            self._group = torch.distributed.new_group(backend="gloo")
        if self._restored is not None:
            self._saved = (trainer.global_step, self._restored["place"])
            if not trainer.strategy.broadcast(_path(trainer, "best").is_file()):
                self.best = None  # it is in the folder of another run
            restored = {name: torch.tensor(value) for name, value in self._restored["metrics"].items()}
            trainer.callback_metrics.update(restored)
        self.interrupts.install()  # Lightning's own handler of SIGTERM can hang with several processes
        self.interrupts.deferred = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the epoch that is over, and stops if asked to."""
        # With max_steps, Lightning takes every resumed run for one in the middle of an epoch.
        trainer.fit_loop._restarting = False
        trainer.fit_loop.epoch_loop.restarting = False
        self._epoch_over(trainer)
        if self._asked_to_stop(trainer):
            raise Interrupted(self.interrupts.requested)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Stops, after `on_train_batch_end` has saved: by now the metrics of that batch are logged, too."""
        if self._stop:
            raise Interrupted(self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Saves, if asked to stop, and if training can go on exactly from here."""
        if not self._asked_to_stop(trainer) or trainer.is_last_batch:
            return
        if not _gradients_pending(trainer) and not _validation_may_follow(trainer):
            self._save(trainer, "last", "batch")
            self._stop = self.interrupts.requested

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Saves and stops, if asked to.

        Several processes may have different numbers of batches to validate, so they cannot agree to stop here:
        they finish the validation first.
        """
        if not _training(trainer) or trainer.world_size > 1 or not self.interrupts.requested:
            return
        if _steps_left(trainer) and (trainer.is_last_batch or not _gradients_pending(trainer)):
            self._save(trainer, "last", "validation")
            raise Interrupted(self.interrupts.requested)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves ``best.ckpt`` if this validation is the best one yet."""
        if _training(trainer):
            self._save_if_best(trainer, cast("Task", pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the epoch that a resumed run went on with."""
        # Else Lightning would leave out this epoch's step of a ReduceLROnPlateau.
        trainer.fit_loop._restarting = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last epoch."""
        self._epoch_over(trainer)
        self.interrupts.deferred = False

    def _asked_to_stop(self, trainer: Trainer) -> bool:
        """Whether any process was. All processes call this together."""
        if trainer.world_size > 1:
            requested = torch.tensor(self.interrupts.requested)
            torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX, group=self._group)
            self.interrupts.requested = int(requested)
        return self.interrupts.requested != 0

    # ----------------------------------------------------------------- saving

    def _epoch_over(self, trainer: Trainer) -> None:
        if self._saved == (trainer.global_step, "epoch"):
            return
        if self.best is None or self.best["metric"] is None:  # there was no validation yet
            self.best = {"metric": None, "value": None, "epoch": trainer.current_epoch - 1}
            self._save(trainer, "best", "epoch")
        self._save(trainer, "last", "epoch")

    def _save_if_best(self, trainer: Trainer, task: Task) -> None:
        metrics = trainer.callback_metrics
        if task.monitor not in metrics:
            names = ", ".join(sorted(metrics))
            raise KeyError(f"{type(task).__name__}.monitor={task.monitor!r} is not logged; these are: {names}")
        value = metrics[task.monitor].item()
        best = self.best["value"] if self.best is not None else None
        # Of equal values the later one is better trained: a figure may have reached the end of its range.
        better = best is None or best != best or (value >= best if task.monitor_mode == "max" else value <= best)
        if trainer.strategy.broadcast(better):
            self.best = {"metric": task.monitor, "value": value, "epoch": trainer.current_epoch}
            self._save(trainer, "best", "validated")

    def _save(self, trainer: Trainer, name: Literal["best", "last"], place: Place) -> None:
        """Writes a checkpoint aside, and renames it. All processes call this together."""
        if getattr(trainer, "fast_dev_run", False):
            return
        path = _path(trainer, name)
        aside = path.with_name(f".{name}.ckpt.new")
        self._place = place
        trainer.save_checkpoint(aside)
        self._place = None
        self._saved = (trainer.global_step, place)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()  # so that the logs reach as far as the checkpoint
            os.replace(aside, path)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the `RunState`, and puts the loops' progress in a form that Lightning goes on from correctly."""
        loops = checkpoint["loops"]["fit_loop"]
        if self._place == "epoch":
            for count in loops["epoch_progress"].values():
                count.update(dict.fromkeys(("ready", "started", "completed"), count["processed"]))
        elif self._place == "validation":
            progress = loops["epoch_loop.val_loop.batch_progress"]
            progress["total"].update(ready=1, started=1, processed=0, completed=0)
            progress["current"].update(ready=0, started=0, processed=0, completed=0)
        batches = loops["epoch_loop.state_dict"]["_batches_that_stepped"]
        complete = self._place == "validated" and trainer.is_last_batch
        state: RunState = {
            "place": self._place,
            "epochs": loops["epoch_progress"]["current"]["processed"] + complete,
            "log_step": batches - 1 if self._place == "epoch" else batches,
            "metrics": {name: value.item() for name, value in trainer.callback_metrics.items()},
            "best": self.best,
            "config": self.config,
        }
        checkpoint["run"] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over from the run that is resumed."""
        if "run" in checkpoint:
            self._restored = checkpoint["run"]
            self.best = checkpoint["run"]["best"]


class SaveFirst(Callback):
    """Has the last epoch saved before others use the trained network at the end: pictures may fail, or take long.

    It stands before them; Lightning puts `Checkpoints` behind all others.

    Args:
        checkpoints: Writes the checkpoints.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the last epoch."""
        self.checkpoints.on_train_end(trainer, pl_module)


def save_before_error(trainer: Trainer, place: Literal["batch", "validation"]) -> None:
    """Writes ``last.ckpt``, so that a training which an error ends can go on. All processes call this together.

    Args:
        trainer: The trainer. Where it does not train, nothing is written.
        place: ``"batch"``: a loader was to make the next one. ``"validation"``: it is not over.
    """
    if not _training(trainer):
        return
    if place == "batch" and trainer.fit_loop.epoch_loop.batch_progress.current.ready == 0:
        return  # the checkpoint of the epoch before has everything
    for callback in attached_callbacks(trainer):
        if isinstance(callback, Checkpoints):
            callback._save(trainer, "last", place)


def _path(trainer: Trainer, name: Literal["best", "last"]) -> Path:
    return run_dir(trainer) / "checkpoints" / f"{name}.ckpt"


def _training(trainer: Trainer) -> bool:
    """Whether a validation is part of a training."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _steps_left(trainer: Trainer) -> bool:
    """Whether ``max_steps`` allows another step: else a resumed run ends at once, without its last validation."""
    return trainer.max_steps < 0 or trainer.global_step < trainer.max_steps


def _gradients_pending(trainer: Trainer) -> bool:
    """Whether gradients are accumulated that the optimizer has not used yet: no checkpoint holds them."""
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches != 0


def _validation_may_follow(trainer: Trainer) -> bool:
    """Whether a validation in the middle of the epoch may come right after this batch."""
    every = trainer.val_check_batch  # None: by time; infinite: at the end of an epoch
    if every is None or math.isinf(every):
        return False
    loop = trainer.fit_loop
    return (loop.batch_idx + 1) % every == 0 or (loop.total_batch_idx + 1) % every == 0

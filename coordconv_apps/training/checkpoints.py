"""Write ``checkpoints/best.ckpt`` and ``checkpoints/last.ckpt``, and stop a training so that it can resume exactly.

A checkpoint is written at one of five places, at which it can hold everything that training depends on:

- ``epoch``: after an epoch, with its validation (``last.ckpt``, after each).
- ``batch``: after a batch that neither a validation nor the end of the epoch follows (an interruption).
- ``stop``: after the last batch of a training that ends within an epoch, and its validation (``last.ckpt``).
- ``validation``: within an interrupted validation, which is repeated from its beginning.
- ``validated``: right after a validation (``best.ckpt``).

Lightning's loops resume correctly from ``batch`` and ``validated``. For the others, `Checkpoints` changes the loops'
progress in the checkpoint to a form that Lightning resumes from correctly.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, LambdaCallback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.checkpoint_io import AtomicCheckpointIO
from coordconv_apps.training.lightning_internals import (
    batches_that_stepped,
    load_loader_state,
    mark_as_not_restarting,
    rewind_to_batch_end,
)
from coordconv_apps.training.signals import Interrupted, Interrupts
from coordconv_apps.training.task import Task
from coordconv_apps.training.trainer_access import only_checks_code
from coordconv_apps.utils.files import TEMPORARY_SUFFIX, named_in_errors

Place = Literal["epoch", "batch", "stop", "validation", "validated"]


class RunState(TypedDict):
    """State of a run, in a checkpoint under ``"run"``."""

    place: Place | None  # None: by another callback, such as a ModelCheckpoint in trainer.callbacks
    epochs: int  # number of complete ones
    steps: int  # of the optimizers
    log_step: int  # the last step whose logged metrics belong to this checkpoint
    metrics: dict[str, float]  # latest values
    best: dict[str, Any] | None  # metric, value and epoch of best.ckpt
    config: dict[str, Any]  # the command's configuration: plain values


class Checkpoints(Checkpoint):
    """Write ``best.ckpt`` and ``last.ckpt``, and stop a training after a signal.

    Without any validation, ``best.ckpt`` is that of the last epoch. Each checkpoint has the command's ``config``.
    """

    def __init__(self, interrupts: Interrupts, config: dict[str, Any]) -> None:
        self.interrupts = interrupts
        self.config = config
        self.best: dict[str, Any] | None = None
        self._restored: RunState | None = None
        self._place: Place | None = None
        self._saved: tuple[int, Place | None] = (0, "epoch")
        self._stop = 0
        self._stop_delayed = False  # whether the trainer stops once its gradients are used
        self._group: Any = None  # for `_asked_to_stop`; None is the default group

    def before_others(self) -> Callback:
        """Return the callback to put before all others: it saves before these, such as pictures, can fail.

        Lightning moves a `Checkpoint` behind them. At the end of an epoch, tasks and callbacks also log its means, and
        drop what these are computed from.
        """
        return LambdaCallback(on_train_epoch_end=self._before_train_epoch_end, on_train_end=self.on_train_end)

    # ------------------------------------------------------------- in training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare saving, handle signals from now on, and restore the loader's position and the latest metrics."""
        load_loader_state(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not a plugin of the user
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if trainer.world_size > 1 and torch.distributed.get_backend() != "gloo":
            # Over gloo, so that asking all processes whether to stop does not synchronise with the GPU.
            self._group = torch.distributed.new_group(backend="gloo")
        if self._restored is not None:
            self._saved = (trainer.global_step, self._restored["place"])
            if not trainer.strategy.broadcast(_path(trainer, "best").is_file()):
                self.best = None  # the file is in another run's folder
            restored = {name: torch.tensor(value) for name, value in self._restored["metrics"].items()}
            trainer.callback_metrics.update(restored)
        self.interrupts.install()  # Lightning's own handler of SIGTERM can hang with several processes
        self.interrupts.deferred = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the previous epoch, and stop after a signal."""
        mark_as_not_restarting(trainer)
        trainer.fit_loop.epoch_loop.restarting = False
        self._epoch_over(trainer)
        if self._asked_to_stop(trainer):
            raise Interrupted(self.interrupts.requested)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Stop if `on_train_batch_end` has saved; by now the metrics of that batch are logged, too."""
        if self._stop:
            raise Interrupted(self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Save after a signal, if training can resume exactly from here."""
        self._delay_stop(trainer)
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
        """Save and stop after a signal, in one process: several may validate different numbers of batches."""
        if not _training(trainer) or trainer.world_size > 1 or not self.interrupts.requested:
            return
        # Without another step, a resumed run would skip its last validation.
        steps_left = trainer.max_steps < 0 or trainer.global_step < trainer.max_steps
        if steps_left and (trainer.is_last_batch or not _gradients_pending(trainer)):
            self._save(trainer, "last", "validation")
            raise Interrupted(self.interrupts.requested)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save ``best.ckpt`` if this is the best validation so far."""
        if _training(trainer) and not only_checks_code(trainer):
            self._delay_stop(trainer)
            self._save_if_best(trainer, cast(Task, pl_module))

    def _before_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a training that stops within an epoch, such as by ``max_steps``: a resumed one continues the epoch."""
        if not trainer.is_last_batch:
            self._save_without_validation(trainer, trainer.current_epoch, "stop")
            self._save(trainer, "last", "stop")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch that a resumed run continued."""
        mark_as_not_restarting(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._epoch_over(trainer)
        self.interrupts.deferred = False

    def _delay_stop(self, trainer: Trainer) -> None:
        """Let the trainer stop only after a batch whose gradients are used: no checkpoint holds accumulated ones."""
        pending = _gradients_pending(trainer) and not trainer.is_last_batch
        if trainer.should_stop and pending:
            trainer.should_stop, self._stop_delayed = False, True
        elif self._stop_delayed and not pending:
            trainer.should_stop, self._stop_delayed = True, False

    def _asked_to_stop(self, trainer: Trainer) -> bool:
        """Return whether any process got a signal. All processes call this together."""
        if trainer.world_size == 1:
            return self.interrupts.requested != 0
        requested = torch.tensor(self.interrupts.requested)
        torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX, group=self._group)
        if agreed := int(requested):
            self.interrupts.requested = agreed
        return agreed != 0  # a signal that came meanwhile counts the next time, on all processes

    # ----------------------------------------------------------------- saving

    def _epoch_over(self, trainer: Trainer) -> None:
        if self._saved in ((trainer.global_step, "epoch"), (trainer.global_step, "stop")):
            return
        self._save_without_validation(trainer, trainer.current_epoch - 1, "epoch")
        self._save(trainer, "last", "epoch")

    def _save_without_validation(self, trainer: Trainer, epoch: int, place: Place) -> None:
        """Save ``best.ckpt`` if there was no validation yet."""
        if self.best is None or self.best["metric"] is None:
            self.best = {"metric": None, "value": None, "epoch": epoch}
            self._save(trainer, "best", place)

    def _save_if_best(self, trainer: Trainer, task: Task) -> None:
        metrics = trainer.callback_metrics
        if task.monitor not in metrics:
            names = ", ".join(sorted(metrics))
            raise KeyError(f"{type(task).__name__}.monitor={task.monitor!r} is not logged; these are: {names}")
        value = metrics[task.monitor].item()
        best = self.best["value"] if self.best is not None else None
        # Among equal values, the later one wins: a saturated metric does not show that training still improves.
        better = best is None or best != best or (value >= best if task.monitor_mode == "max" else value <= best)
        if trainer.strategy.broadcast(better):
            self.best = {"metric": task.monitor, "value": value, "epoch": trainer.current_epoch}
            self._save(trainer, "best", "validated")

    def _save(self, trainer: Trainer, name: Literal["best", "last"], place: Place) -> None:
        """Write a checkpoint to a temporary file, and rename it. All processes call this together."""
        if only_checks_code(trainer):
            return
        path = _path(trainer, name)
        temporary = path.with_name(f".{name}.ckpt{TEMPORARY_SUFFIX}")
        self._place = place
        try:
            with named_in_errors(path):
                trainer.save_checkpoint(temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._place = None
        self._saved = (trainer.global_step, place)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()  # so that the logs are complete up to the checkpoint
            os.replace(temporary, path)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the `RunState`, and change the loops' progress to a form that Lightning resumes from correctly."""
        loops = checkpoint["loops"]["fit_loop"]
        if self._place == "epoch":
            for count in loops["epoch_progress"].values():
                count.update(dict.fromkeys(("ready", "started", "completed"), count["processed"]))
        elif self._place == "validation":
            progress = loops["epoch_loop.val_loop.batch_progress"]
            progress["total"].update(ready=1, started=1, processed=0, completed=0)
            progress["current"].update(ready=0, started=0, processed=0, completed=0)
        elif self._place == "batch":
            progress = loops["epoch_loop.batch_progress"]
            if progress["current"]["processed"] < progress["current"]["ready"]:  # within a batch: it is done again
                progress["is_last_batch"] = False
                for count in (progress["total"], progress["current"]):
                    count.update(dict.fromkeys(("ready", "started"), count["processed"]))
        elif self._place == "stop":
            for count in loops["epoch_progress"].values():
                count["processed"] -= 1  # the epoch is not over
            rewind_to_batch_end(checkpoint["loops"])
        batches = batches_that_stepped(checkpoint["loops"])
        complete = self._place == "validated" and trainer.is_last_batch
        checkpoint["run"] = RunState(
            place=self._place,
            epochs=loops["epoch_progress"]["current"]["processed"] + complete,
            steps=checkpoint["global_step"],
            log_step=batches - 1 if self._place == "epoch" else batches,
            metrics={name: value.item() for name, value in trainer.callback_metrics.items()},
            best=self.best,
            config=self.config,
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state of the run that is resumed."""
        if "run" in checkpoint:
            self._restored = checkpoint["run"]
            self.best = checkpoint["run"]["best"]


def raise_if_interrupted(trainer: Trainer) -> None:
    """Raise `Interrupted` in a training that was asked to stop, for validation steps that take long.

    Call `save_before_error` before the exception leaves the step.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoints) and callback.interrupts.requested:
            raise Interrupted(callback.interrupts.requested)


def save_before_error(trainer: Trainer, place: Literal["batch", "validation"]) -> None:
    """Write ``last.ckpt``, so that a training that ends with an error can resume. All processes call this together.

    An error in a batch, which a resumed run repeats, has the place ``"batch"``. Outside of training nothing is written.
    """
    if not _training(trainer):
        return
    if place == "batch" and trainer.fit_loop.epoch_loop.batch_progress.current.completed == 0:
        return  # the previous epoch's checkpoint is complete
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, Checkpoints):
            callback._save(trainer, "last", place)  # noqa: SLF001 - the class is in this module


def _path(trainer: Trainer, name: Literal["best", "last"]) -> Path:
    return run_dir(trainer) / "checkpoints" / f"{name}.ckpt"


def _training(trainer: Trainer) -> bool:
    """Return whether this is a training, with its validations."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _gradients_pending(trainer: Trainer) -> bool:
    """Return whether there are accumulated gradients that the optimizer has not used: no checkpoint holds them."""
    return (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches != 0


def _validation_may_follow(trainer: Trainer) -> bool:
    """Return whether a validation within the epoch may come right after this batch."""
    every = trainer.val_check_batch  # None: by time; infinite: at the end of an epoch
    if every is None or math.isinf(every):
        return False
    loop = trainer.fit_loop
    return (loop.batch_idx + 1) % every == 0 or (loop.total_batch_idx + 1) % every == 0

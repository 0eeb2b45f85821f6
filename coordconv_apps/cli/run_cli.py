"""Create the run folder, loggers, callbacks and trainer of a command, and run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, LambdaCallback, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from coordconv_apps.cli.arguments import ArgumentsCLI
from coordconv_apps.cli.launch import hold_signals_until_connected, parent_launch, pass_to_launched, report_waiting
from coordconv_apps.cli.trainer import (
    CommandTrainer,
    check_started_processes,
    check_trainer_arguments,
    choose_strategy,
    given_callbacks,
    trainer_error,
)
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.export import Format
from coordconv_apps.runs.config import write_config
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.folder import TRAINING, new_run_dir, next_run_dir, training_of
from coordconv_apps.training.checkpoints import Checkpoints
from coordconv_apps.training.lightning_internals import set_default_root_dir
from coordconv_apps.training.progress import BarProgress, PlainProgress
from coordconv_apps.training.task import Task
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.files import absent_folders, remove_empty_folders


class RunCLI(ArgumentsCLI):
    """Create the trainer of a command, and run it.

    The constructor calls `parse_arguments`, `before_instantiate_classes`, `instantiate_classes` (data module, task, and
    with `instantiate_trainer` the trainer), and then the command's method: `export`, or the trainer's.
    """

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401  # LightningCLI's
        """Create the run folder, its loggers and callbacks, and the trainer, and begin the run."""
        given = self._get(self.config_init, "trainer")
        check_trainer_arguments(given, self.model)
        if self.subcommand != "export":  # runs on rank 0 alone
            check_started_processes(given)
        # Without the flags that are valid for this call alone.
        left_out = ("config", "ckpt_path", "allow_random_weights")
        config = {key: value for key, value in self.config_dump.items() if key not in left_out}
        config["name"] = self.name_dir.name
        checkpoints = Checkpoints(self.interrupts, config)
        kwargs["callbacks"] = self._callbacks(given, checkpoints)
        kwargs["default_root_dir"] = folder = self._run_dir()
        if self.subcommand == "fit" and is_main_process():
            self.record.lock.acquire(folder)
        if given.logger is not False:  # those of the configuration are added to the run's own
            added = () if given.logger in (None, True) else given.logger
            kwargs["logger"] = [*self._loggers(folder), *([added] if isinstance(added, Logger) else added)]
        kwargs["strategy"] = choose_strategy(given, self.model)
        if given.max_epochs is None and given.max_steps == -1 and given.max_time is None:
            kwargs["max_epochs"] = 1000  # Lightning's default, without its warning
        try:
            trainer = cast(CommandTrainer, super().instantiate_trainer(**kwargs))
        except (MisconfigurationException, ValueError, TypeError) as error:
            defaults = self._parser(self.subcommand).get_defaults().trainer
            raise trainer_error(error, {k: v for k, v in given.items() if v != defaults.get(k)}) from error
        trainer.checkpoint = None if self.checkpoint is None else self.checkpoint.path
        self._begin(trainer, folder, config, checkpoints)
        return trainer

    def _begin(self, trainer: CommandTrainer, folder: Path, config: dict[str, Any], checkpoints: Checkpoints) -> None:
        """Write the first files of the run, prepare for other processes of the command, and start its record."""
        if is_main_process():
            write_config(folder, config, 0 if self.checkpoint is None else self.checkpoint.state["epochs"])
        ckpt_path = None if self.checkpoint is None else str(self.checkpoint.path)
        pass_to_launched({"run_dir": str(folder), "ckpt_path": ckpt_path, "pid": os.getpid()})
        if self.subcommand != "export":  # connects to no other process
            report_waiting(trainer)
            hold_signals_until_connected(trainer, self.record, self.interrupts)
        seed = self._get(self.config, "seed_everything")
        command, name = self.config.subcommand, self.name_dir.name
        self.record.start(command, name, folder, seed, self.checkpoint, trainer, self.model, checkpoints)

    def _run_dir(self) -> Path:
        """Return the folder of the command: that of the run to resume, or a new one, below the run that it uses."""
        launch = parent_launch()
        if launch is not None:
            return Path(launch["run_dir"])
        parent, kind = self.name_dir, TRAINING if self.subcommand == "fit" else str(self.subcommand)
        training = None if self.checkpoint is None else training_of(self.checkpoint.path)
        if training is not None and training.parent.resolve() == self.name_dir.resolve():
            parent = self.name_dir / training.name
            if self.subcommand == "fit":
                return parent
        if not is_main_process():
            return next_run_dir(parent, kind)
        absent = absent_folders(parent)
        try:
            folder = new_run_dir(parent, kind)
        except OSError:  # such as a name that is too long
            remove_empty_folders(absent)
            raise
        self.record.created = [folder, *absent]
        return folder

    def _callbacks(self, given: Namespace, checkpoints: Checkpoints) -> list[Callback]:
        mark = self.record.mark_running
        started = LambdaCallback(
            setup=share_run_dir,
            on_train_start=mark,
            on_validation_start=mark,
            on_test_start=mark,
            on_predict_start=mark,
        )
        callbacks: list[Callback] = [*given_callbacks(given), started]
        if given.enable_checkpointing is not False:
            callbacks = [checkpoints.before_others(), *callbacks, checkpoints]
        if given.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in callbacks):
            callbacks.append(BarProgress() if sys.stdout.isatty() else PlainProgress())
        return callbacks

    def _loggers(self, folder: Path) -> list[Logger]:
        """Return the run's loggers; those of a resumed run drop what was logged after its checkpoint."""
        checkpoint = self.checkpoint if self.subcommand == "fit" else None
        step = -1 if checkpoint is None else checkpoint.state["log_step"]
        purge_step = step + 1 if step >= 0 else None
        tensorboard = TensorBoardLogger(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)
        return [tensorboard, CsvLog(folder, keep_until=step)]

    def export(self, model: Task, datamodule: DataModule, format: Format) -> None:
        """Export from rank 0 alone: LightningCLI calls this in place of the trainer's method, which has the flags."""
        if not is_main_process():
            return
        files = cast(CommandTrainer, self.trainer).export(model, datamodule, format)
        self.record.add({f"difference/{path.name}": value for path, value in files.items()})
        for path in files:
            print(f"wrote and verified {path}")


def share_run_dir(trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
    """Use the run folder of rank 0: processes that torchrun started may have chosen other ones."""
    set_default_root_dir(trainer, trainer.strategy.broadcast(trainer.default_root_dir))

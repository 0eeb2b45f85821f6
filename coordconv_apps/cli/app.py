"""The command line of every application: ``python -m <app> fit | validate | test | predict | export``.

From the arguments to a trained network, in this order:

1. `run` is what an application's ``__main__`` calls. It turns whatever happens into an exit status.
2. `Arguments` parses the command line (LightningCLI, jsonargparse) and completes it from the checkpoint, if there is
   one. LightningCLI then builds data and task.
3. `SuiteCLI.instantiate_trainer` makes the run's folder, loggers, callbacks and the trainer.
4. `SuiteCLI.fit` and its like start the trainer.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from coordconv_apps.cli.arguments import AlreadyFinished, Arguments
from coordconv_apps.cli.launch import end_processes, parent_launch, tell_launched
from coordconv_apps.cli.report import Report
from coordconv_apps.export import Format, SuiteTrainer
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.folder import new_run_dir, next_run_dir
from coordconv_apps.training.checkpoints import Checkpoints, SaveFirst
from coordconv_apps.training.progress import BarProgress, PlainProgress, is_terminal
from coordconv_apps.training.signals import Interrupted, Interrupts
from coordconv_apps.utils.distributed import is_first_here, is_main_process
from coordconv_apps.utils.errors import UserError, debugging, is_user_error, one_line
from coordconv_apps.utils.files import atomic_write
from coordconv_apps.utils.memory import keep_freed_memory
from coordconv_apps.utils.warning_filters import filter_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule, Trainer

    from coordconv_apps.data.datamodule import DataModule
    from coordconv_apps.training.task import Task


def run(
    app: str,
    task_class: type[Task],
    datamodule_class: type[DataModule],
    args: Sequence[str] | None = None,
    *,
    default_task: type[Task] | None = None,
    callbacks: Sequence[type[Callback]] = (),
) -> None:
    """Runs one command of an application: the whole body of its ``__main__``.

    Args:
        app: The application's name, as in the folders of its runs.
        task_class: The base class of the tasks. The package of its ``tasks`` module is what follows ``python -m``.
        datamodule_class: The data.
        args: The command line; ``sys.argv`` if None.
        default_task: The task if neither the command line nor a config file names one; ``task_class`` if None.
        callbacks: Callbacks of the application, such as `Pictures`. The arguments of each are flags, under its name
            in snake case.

    Raises:
        SystemExit: The command did not end well: status 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM.
    """
    report = Report(app, _package(task_class))
    interrupts = Interrupts()
    status = 1
    try:
        interrupts.install()
        keep_freed_memory()
        with filter_warnings():
            SuiteCLI(report, interrupts, task_class, datamodule_class, args, default_task, callbacks)
        report.finish("finished")
        status = 0
    except AlreadyFinished as reason:
        if is_main_process():
            print(reason)
        status = 0
    except Interrupted as signal:
        report.finish("interrupted", signal)
        # Lightning kills the first process when one that it started does not end with 0.
        status = signal.exit_status if is_first_here() else 0
    except Exception as error:
        report.finish("failed", error)
        mistake = is_user_error(error, report.running)
        if mistake and not debugging():
            if is_first_here():  # of several processes, one speaks for all
                print(f"error: {one_line(error)}", file=sys.stderr)
        elif mistake or not is_first_here():
            traceback.print_exc()  # now: the first process is about to end the others
        else:
            raise
        status = 2 if mistake else 1
    finally:
        end_processes(report.trainer, failed=status != 0)
        interrupts.restore()
    if status:
        sys.exit(status)


def _package(task_class: type[Task]) -> str:
    """The application's package: ``rl`` of a class in ``rl.tasks.ppo``, ``detection`` of one in ``detection.task``."""
    module = task_class.__module__
    package, tasks, _ = f"{module}.".partition(".tasks.")
    return package if tasks else module.rpartition(".")[0] or module


class SuiteCLI(Arguments):
    """Builds a command's parts and runs it.

    Args:
        report: Is told about the run.
        interrupts: Knows whether a signal asks to stop.
        task_class: The base class of the application's tasks.
        datamodule_class: The data.
        args: The command line; ``sys.argv`` if None.
        default_task: The task if neither the command line nor a config file names one; ``task_class`` if None.
        callbacks: Callbacks of the application.
    """

    def __init__(
        self,
        report: Report,
        interrupts: Interrupts,
        task_class: type[Task],
        datamodule_class: type[DataModule],
        args: Sequence[str] | None,
        default_task: type[Task] | None,
        callbacks: Sequence[type[Callback]],
    ) -> None:
        self.interrupts = interrupts
        super().__init__(report, task_class, datamodule_class, args, default_task, callbacks)

    # -------------------------------------------------------------------- parts

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401  # LightningCLI's
        """Makes the run's folder, its loggers and callbacks, and the trainer."""
        given = self._get(self.config_init, "trainer")
        if given.default_root_dir is not None:
            raise UserError(f"--trainer.default_root_dir={given.default_root_dir}: choose the folder with --runs_dir")
        if re.search("spawn|fork|notebook", str(given.strategy)):
            raise UserError(f"--trainer.strategy={given.strategy}: choose ddp, whose processes get the same arguments")
        precision = "32-true" if given.precision is None else str(given.precision)
        precision = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}.get(precision, precision)
        if self.model.precisions is not None and precision not in self.model.precisions:
            allowed = ", ".join(self.model.precisions)
            raise UserError(f"--trainer.precision={given.precision}: must be one of {allowed}")
        replaced = self.model.replaced_trainer_args
        if not self.model.automatic_optimization:
            for name, plain in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
                if given[name] not in (None, plain):
                    text = "null" if plain is None else plain
                    raise UserError(
                        f"--trainer.{name}={given[name]}: must be {text} for a task that steps its optimizers itself"
                        + (f"; choose {replaced[name]}" if name in replaced else "")
                    )
        config = self._plain_config()
        folder = self._run_dir()
        checkpoints = Checkpoints(self.interrupts, config)
        kwargs["default_root_dir"] = folder
        kwargs["callbacks"] = self._callbacks(given, checkpoints)
        if given.logger in (None, True):
            kwargs["logger"] = self._loggers(folder)
        kwargs["strategy"] = self._strategy(given)
        if given.max_epochs is None and given.max_steps == -1 and given.max_time is None:
            kwargs["max_epochs"] = 1000  # Lightning's own choice, but without its warning
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            if is_main_process() and not any(folder.iterdir()):
                folder.rmdir()
            defaults = self._parser(self.subcommand).get_defaults().trainer
            raise _trainer_error(error, {k: v for k, v in given.items() if v != defaults.get(k)}) from error
        epochs = 0 if self.restored is None else self.restored["epochs"]
        if is_main_process():
            _write_config(folder / "config.yaml", config, epochs)
        tell_launched({"run_dir": str(folder), "ckpt_path": None if self.checkpoint is None else str(self.checkpoint)})
        seed = self._get(self.config, "seed_everything")
        self.report.start(
            self.config.subcommand,
            self.name_dir.name,
            folder,
            trainer,
            self.model,
            seed,
            checkpoints,
            self.checkpoint,
            epochs,
        )
        return trainer

    def _run_dir(self) -> Path:
        """The run's folder: that of the run to resume, or a new one."""
        told = parent_launch()
        if told is not None:
            return Path(told["run_dir"])
        if self.subcommand == "fit" and self.checkpoint is not None:
            folder = self.checkpoint.parent.parent
            if folder.parent.resolve() == self.name_dir.resolve() and self.checkpoint.parent.name == "checkpoints":
                return self.name_dir / folder.name
        return new_run_dir(self.name_dir) if is_main_process() else next_run_dir(self.name_dir)

    def _strategy(self, given: Namespace) -> Any:  # noqa: ANN401  # a name, or an object of the config's
        """The trainer's strategy, which on several processes looks for unused parameters if the task needs it."""
        find_unused = self.model.find_unused_parameters
        if find_unused is None:
            find_unused = not self.model.automatic_optimization
        several = given.num_nodes > 1 or _device_count(given.devices) > 1
        if find_unused and (given.strategy == "ddp" or (given.strategy == "auto" and several)):
            return "ddp_find_unused_parameters_true"
        return given.strategy

    def _callbacks(self, given: Namespace, checkpoints: Checkpoints) -> list[Callback]:
        callbacks: list[Callback] = [*(given.callbacks or []), _Started(self.report)]
        if given.enable_checkpointing is not False:
            callbacks = [SaveFirst(checkpoints), *callbacks, checkpoints]
        if given.enable_progress_bar is not False:
            callbacks.append(BarProgress() if is_terminal() else PlainProgress())
        return callbacks

    def _loggers(self, folder: Path) -> list[Logger]:
        """The run's logs; those of a resumed run lose what was logged after its checkpoint."""
        step = self.restored["log_step"] if self.restored is not None and self.subcommand == "fit" else -1
        purge_step = step + 1 if step >= 0 else None
        tensorboard = TensorBoardLogger(folder.parent, "", folder.name, default_hp_metric=False, purge_step=purge_step)
        return [tensorboard, CsvLog(folder, keep_until=step)]

    def _plain_config(self) -> dict[str, Any]:
        """The command's configuration, without what belongs to this one call."""
        left_out = ("config", "ckpt_path", "allow_random_weights")
        config = {key: value for key, value in self.config_dump.items() if key not in left_out}
        return {**config, "name": self.name_dir.name}

    # ----------------------------------------------------------------- commands

    def fit(self, model: Task, datamodule: DataModule) -> None:
        """Trains."""
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=self.checkpoint)

    def validate(self, model: Task, datamodule: DataModule) -> None:
        """Evaluates on the validation data."""
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False)

    def test(self, model: Task, datamodule: DataModule) -> None:
        """Evaluates on the test data."""
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self.checkpoint, verbose=False)

    def predict(self, model: Task, datamodule: DataModule) -> None:
        """Predicts; what becomes of the predictions is the application's matter."""
        self.trainer.predict(model, datamodule=datamodule, ckpt_path=self.checkpoint, return_predictions=False)

    def export(self, model: Task, datamodule: DataModule, format: Format) -> None:
        """Writes the checkpoint's network in other forms."""
        if self.checkpoint is not None:
            checkpoint = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            model.on_load_checkpoint(checkpoint)  # as Lightning does for its own commands
            model.load_state_dict(checkpoint["state_dict"])
        files = cast("SuiteTrainer", self.trainer).export(model, datamodule, format)
        self.report.add({f"difference/{path.name}": value for path, value in files.items()})
        for path in files:
            print(f"written and verified: {path}")


class _Started(Callback):
    """Tells the report when everything is set up: an error after that is no user's mistake."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Processes that were started from outside, as by torchrun, may have taken another number for the run's folder.
        folder = trainer.strategy.broadcast(trainer.default_root_dir)
        trainer._default_root_dir = folder  # type: ignore[attr-defined]  # of which Lightning's property tells

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True


def _trainer_error(error: Exception, given: dict[str, Any]) -> UserError:
    """Lightning's error about an impossible argument, with the argument that it seems to be about."""
    message = one_line(error)
    about = [f"--trainer.{k}={v}" for k, v in given.items() if re.search(rf"(?<!\w){re.escape(str(v))}(?!\w)", message)]
    return UserError(f"{', '.join(about) or 'trainer'}: {message}")


def _device_count(devices: list[int] | str | int) -> int:
    """The number of devices that a value of ``--trainer.devices`` asks for."""
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return sum(bool(part.strip()) for part in devices.split(","))
    return max(torch.cuda.device_count(), 1) if str(devices) in ("auto", "-1") else int(devices)


def _write_config(path: Path, config: dict[str, Any], epochs: int) -> None:
    """Writes ``config.yaml``; a resumed run's other one is kept as ``config_until_epoch_<epochs>.yaml``."""
    if path.is_file():
        if yaml.safe_load(path.read_text(encoding="utf-8")) == config:
            return
        path.rename(path.with_name(f"config_until_epoch_{epochs}.yaml"))
    with atomic_write(path) as file:
        yaml.safe_dump(config, file, sort_keys=False)

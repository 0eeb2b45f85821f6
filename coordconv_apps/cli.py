"""The command line of every application: ``python -m <app> fit | validate | test | predict | export``.

From the arguments to a trained network, in this order:

1. `run` is what an application's ``__main__`` calls. It turns whatever happens into an exit status.
2. `SuiteCLI.parse_arguments` parses the command line (LightningCLI, jsonargparse) and completes it from the
   checkpoint, if there is one. LightningCLI then builds data and task.
3. `SuiteCLI.instantiate_trainer` makes the run's folder, loggers, callbacks and the trainer.
4. `SuiteCLI.fit` and its like start the trainer.
"""

from __future__ import annotations

import re
import sys
import traceback
from argparse import ArgumentError
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from coordconv_apps.callbacks import PlainProgress, is_terminal
from coordconv_apps.checkpoints import Checkpoints
from coordconv_apps.errors import UserError, debugging, is_user_error, one_line, parsing_error
from coordconv_apps.export import Format, SuiteTrainer
from coordconv_apps.inherit import inherit, read_run_state
from coordconv_apps.interrupts import Interrupted, Interrupts
from coordconv_apps.logs import CsvLog
from coordconv_apps.processes import end_processes, is_first_here, is_main_process, launched, quiet, tell_launched
from coordconv_apps.report import Report, complete_summary
from coordconv_apps.runs import find_checkpoint, new_run_dir, next_run_dir, written_aside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from lightning.pytorch import LightningModule, Trainer

    from coordconv_apps.checkpoints import RunState
    from coordconv_apps.data import DataModule
    from coordconv_apps.task import Task

COMMANDS = ("fit", "validate", "test", "predict", "export")

TRAINER_DEFAULTS = {
    "devices": 1,  # more only when asked for: the size of a training step depends on their number
    "use_distributed_sampler": False,  # the loaders of coordconv_apps.data are right on several processes
    "num_sanity_val_steps": 0,  # a resumed run would not find the state that it left
    "enable_model_summary": False,  # the command prints the number of parameters
    "log_every_n_steps": 10,
}


def run(
    app: str,
    task_class: type[Task],
    datamodule_class: type[DataModule],
    args: Sequence[str] | None = None,
    *,
    callbacks: Sequence[type[Callback]] = (),
) -> None:
    """Runs one command of an application: the whole body of its ``__main__``.

    Args:
        app: The application's name, as in the folders of its runs.
        task_class: The task. Its package is what follows ``python -m``.
        datamodule_class: The data.
        args: The command line; ``sys.argv`` if None.
        callbacks: Callbacks of the application, such as `Pictures`. The arguments of each are flags, under its name
            in snake case.

    Raises:
        SystemExit: The command did not end well: status 2 for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM.
    """
    report = Report(app, task_class.__module__.rpartition(".")[0] or task_class.__module__)
    interrupts = Interrupts()
    status = 1
    try:
        interrupts.install()
        with quiet():
            SuiteCLI(report, interrupts, task_class, datamodule_class, args, callbacks)
        report.finish("finished")
        status = 0
    except NothingToDo as reason:
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


class NothingToDo(Exception):
    """The run to resume has finished already."""


class SuiteCLI(LightningCLI):
    """LightningCLI with the suite's run folders, checkpoints and defaults.

    Args:
        report: Is told about the run.
        interrupts: Knows whether a signal asks to stop.
        task_class: The task.
        datamodule_class: The data.
        args: The command line; ``sys.argv`` if None.
        callbacks: Callbacks of the application.
    """

    def __init__(
        self,
        report: Report,
        interrupts: Interrupts,
        task_class: type[Task],
        datamodule_class: type[DataModule],
        args: Sequence[str] | None,
        callbacks: Sequence[type[Callback]],
    ) -> None:
        self.report = report
        self.interrupts = interrupts
        self.task_class = task_class
        self.callback_classes = callbacks
        self.command_line = sys.argv[1:] if args is None else list(args)
        self.name_dir = Path()
        self.checkpoint: Path | None = None
        self.restored: RunState | None = None
        prog, about = f"python -m {report.module}", f"{report.app}: train, test and use a network"
        super().__init__(
            task_class,
            datamodule_class,
            save_config_callback=None,
            trainer_class=SuiteTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                "exit_on_error": False,
                "prog": prog,
                "description": about,
                **{command: {"exit_on_error": False} for command in COMMANDS},
            },
            args=self.command_line,
            auto_configure_optimizers=False,
        )

    # ---------------------------------------------------------------- arguments

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and which arguments of the trainer's methods are not flags."""
        objects = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
        settled_here = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {command: objects | settled_here for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the flags of the suite, and those of the application's callbacks."""
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Name of the run: its folder is RUNS_DIR/APP/NAME/version_N. Null: the config file's, or default.",
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="A checkpoint's file, or best or last of the newest run of this name. Fit goes on with its training.",
        )
        parser.add_argument(
            "--allow_random_weights",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Let validate, test, predict and export do without --ckpt_path.",
        )
        for callback in self.callback_classes:
            key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", callback.__name__).lower()
            parser.add_lightning_class_args(callback, key)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401  # LightningCLI's
        """Parses the command line; what it leaves open comes from the checkpoint, if there is one.

        Raises:
            UserError: An argument is wrong, or disagrees with the checkpoint.
            FileNotFoundError: There is no such checkpoint.
            NothingToDo: The run to resume has finished.
        """
        try:
            self.config = parser.parse_args(args)
            command = self.config.subcommand
            given = self.config[command]
            _check_seed(given.seed_everything)
            self.name_dir = Path(given.runs_dir) / self.report.app / _run_name(given)
            told = launched()
            ckpt_path = given.ckpt_path if told is None else told["ckpt_path"]
            if ckpt_path is None:
                if command != "fit" and not given.allow_random_weights:
                    raise UserError(
                        f"{command} needs --ckpt_path: a file, or best or last of the newest run named"
                        f" {self.name_dir.name!r} in {self.name_dir.parent} (or --allow_random_weights)"
                    )
                return
            self.checkpoint = find_checkpoint(ckpt_path, self.name_dir)
            self.restored = read_run_state(self.checkpoint)
            merged, changes = inherit(
                command,
                self.restored["config"],
                parser.parse_args(args, defaults=False)[command],
                lambda config: parser.parse_object({"subcommand": command, command: config})[command],
                self.task_class.resumable,
            )
        except ArgumentError as error:
            raise UserError(parsing_error(str(error), self.command_line, self._options())) from error
        self.config[command] = merged
        if is_main_process():
            for change in changes:
                print(f"changed: {change}")
        if command == "fit":
            self._check_unfinished(merged)

    def _parse_ckpt_path(self) -> None:
        """Nothing: LightningCLI would put the checkpoint's arguments over those of the command line."""

    def _options(self) -> list[str]:
        """All arguments of the command, to suggest some of them."""
        command = next((arg for arg in self.command_line if arg in COMMANDS), "fit")
        return list(self._parser(command).get_defaults().keys())

    def _check_unfinished(self, given: Namespace) -> None:
        """Raises `NothingToDo` if the run to resume has come to the end of its epochs."""
        assert self.restored is not None
        epochs, last = self.restored["epochs"], given.trainer.max_epochs
        if last is not None and 0 <= last <= epochs:
            if is_main_process() and self.checkpoint is not None:
                complete_summary(self.checkpoint.parents[1], self.restored)
            raise NothingToDo(
                f"nothing to do: {self.checkpoint} has trained for {epochs} epochs, and --trainer.max_epochs={last}"
            )

    # -------------------------------------------------------------------- parts

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401  # LightningCLI's
        """Makes the run's folder, its loggers and callbacks, and the trainer."""
        given = self._get(self.config_init, "trainer")
        if given.max_epochs is None and given.max_steps == -1 and given.max_time is None:
            kwargs["max_epochs"] = 1000  # Lightning's own choice, but without its warning
        if given.default_root_dir is not None:
            raise UserError(f"--trainer.default_root_dir={given.default_root_dir}: choose the folder with --runs_dir")
        config = self._plain_config()
        folder = self._run_dir()
        checkpoints = Checkpoints(self.interrupts, config)
        callbacks: list[Callback] = [*(given.callbacks or []), _Started(self.report)]
        if given.enable_checkpointing is not False:
            callbacks.append(checkpoints)
        if given.enable_progress_bar is not False:
            callbacks.append(TQDMProgressBar() if is_terminal() else PlainProgress())
        kwargs |= {"default_root_dir": folder, "callbacks": callbacks}
        if given.logger in (None, True):
            step = self.restored["log_step"] if self.restored is not None else -1
            kwargs["logger"] = [
                TensorBoardLogger(
                    folder.parent, "", folder.name, default_hp_metric=False, purge_step=step + 1 if step >= 0 else None
                ),
                CsvLog(folder, keep_until=step),
            ]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            if is_main_process() and not any(folder.iterdir()):
                folder.rmdir()
            raise _trainer_error(error, _changed(given, self._parser(self.subcommand).get_defaults().trainer)) from error
        if is_main_process():
            _write_config(folder / "config.yaml", config, None if self.restored is None else self.restored["epochs"])
        tell_launched({"run_dir": str(folder), "ckpt_path": None if self.checkpoint is None else str(self.checkpoint)})
        seed = self._get(self.config, "seed_everything")
        self.report.start(
            self.subcommand, self.name_dir.name, folder, trainer, self.model, seed, checkpoints, self.checkpoint
        )
        return trainer

    def _run_dir(self) -> Path:
        """The run's folder: that of the run to resume, or a new one."""
        told = launched()
        if told is not None:
            return Path(told["run_dir"])
        if self.subcommand == "fit" and self.checkpoint is not None:
            folder = self.checkpoint.parent.parent
            if folder.parent.resolve() == self.name_dir.resolve() and self.checkpoint.parent.name == "checkpoints":
                return self.name_dir / folder.name
        return new_run_dir(self.name_dir) if is_main_process() else next_run_dir(self.name_dir)

    def _plain_config(self) -> dict[str, Any]:
        """The command's configuration, without what belongs to this one call."""
        config: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_none=False, format="yaml"))
        config = config[self.subcommand]
        for key in ("config", "ckpt_path", "allow_random_weights"):
            config.pop(key, None)
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
            model.load_state_dict(torch.load(self.checkpoint, map_location="cpu", weights_only=True)["state_dict"])
        files = cast("SuiteTrainer", self.trainer).export(model, datamodule, format)
        self.report.add({f"difference/{path.name}": value for path, value in files.items()})
        for path in files:
            print(f"written and verified: {path}")


class _Started(Callback):
    """Tells the report when everything is set up: an error after that is no user's mistake."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.report.running = True


def _changed(given: Namespace, defaults: Namespace) -> dict[str, Any]:
    """The arguments of the trainer that are not at their defaults."""
    return {k: v for k, v in given.items() if v != defaults.get(k)}


def _check_seed(seed: bool | int) -> None:
    """Raises `UserError` for a seed that not all random number generators take."""
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed_everything={seed}: must be an integer from 0 to {2**32 - 1}, or true for any")


def _trainer_error(error: Exception, given: dict[str, Any]) -> UserError:
    """Lightning's error about an impossible argument, with the argument that it seems to be about."""
    message = one_line(error)
    about = [f"--trainer.{k}={v}" for k, v in given.items() if re.search(rf"(?<!\w){re.escape(str(v))}(?!\w)", message)]
    return UserError(f"{', '.join(about) or 'trainer'}: {message}")


def _run_name(given: Namespace) -> str:
    """The run's name.

    Raises:
        UserError: It is no name of a folder.
    """
    name: str = given.name if given.name is not None else Path(given.config[-1]).stem if given.config else "default"
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"--name={name}: must be the name of a folder, without separators")
    return name


def _write_config(path: Path, config: dict[str, Any], epochs: int | None) -> None:
    """Writes ``config.yaml``; a resumed run's other one is kept as ``config_until_epoch_<epochs>.yaml``."""
    if path.is_file():
        if yaml.safe_load(path.read_text(encoding="utf-8")) == config:
            return
        path.rename(path.with_name(f"config_until_epoch_{epochs}.yaml"))
    with written_aside(path) as file:
        yaml.safe_dump(config, file, sort_keys=False)

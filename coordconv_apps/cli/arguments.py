"""Parse the arguments of a command: LightningCLI with the flags and rules of this package."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from coordconv_apps.cli.errors import parsing_error
from coordconv_apps.cli.merge_config import merge_config
from coordconv_apps.cli.model_class import COMMANDS, choices, class_path, preview, run_name
from coordconv_apps.cli.run_report import RunReport, complete_summary
from coordconv_apps.cli.trainer import SuiteTrainer
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.training.signals import Interrupts
from coordconv_apps.training.task import Task
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import UserError

TRAINER_DEFAULTS = {
    "devices": 1,  # the samples of a training step depend on it
    "use_distributed_sampler": False,  # the loaders shard themselves
    "num_sanity_val_steps": 0,  # it would change the random state of a resumed run
    "enable_model_summary": False,  # the command prints the number of parameters
    "log_every_n_steps": 10,
}


class AlreadyFinished(Exception):
    """The run to resume has finished already."""


class ArgumentParser(LightningArgumentParser):
    """Lightning's parser, whose ``--help`` ends with the arguments of one task class."""

    task_class: type[Task] | None = None
    others: Sequence[str] = ()  # names of the other task classes

    def task_parser(self) -> LightningArgumentParser:
        """Return a parser of the task's arguments alone."""
        assert self.task_class is not None
        parser = LightningArgumentParser(add_help=False, usage=SUPPRESS, description="")
        parser.add_lightning_class_args(self.task_class, "model")
        return parser

    def format_help(self, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401  # as argparse's
        """Return the help of all arguments, those of the task class last."""
        text = super().format_help(*args, **kwargs)
        if self.task_class is None:
            return text
        text += f"\nArguments of --model={self.task_class.__name__}, the task:\n{self.task_parser().format_help()}"
        if self.others:
            text += f"\nOther tasks: {', '.join(self.others)}. Show their arguments with --model=NAME --help.\n"
        return text


class ArgumentsCLI(LightningCLI):
    """Parse the arguments of a command; a subclass creates the trainer. The arguments are those of `run`."""

    def __init__(
        self,
        report: RunReport,
        interrupts: Interrupts,
        task_class: type[Task],
        datamodule_class: type[DataModule],
        args: Sequence[str] | None,
        default_task: type[Task] | None,
        callbacks: Sequence[type[Callback]],
    ) -> None:
        self.report = report
        self.interrupts = interrupts
        default = default_task or task_class
        self.task_class, self.command_line, self.checkpoint, self.restored = preview(
            report.app, task_class, default, sys.argv[1:] if args is None else args
        )
        self.task_names = list(choices(task_class, default))
        self.callback_classes = callbacks
        self.name_dir = Path()  # folder of all runs of this name
        super().__init__(
            task_class,
            datamodule_class,
            save_config_callback=None,  # written together with the run folder
            trainer_class=SuiteTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=ArgumentParser,
            subclass_mode_model=True,
            seed_everything_default=0,
            parser_kwargs={
                "exit_on_error": False,
                "prog": f"python -m {report.package}",
                "description": f"{report.app}: train, test and use a network",
                **{command: {"exit_on_error": False} for command in COMMANDS},
            },
            args=self.command_line,
            auto_configure_optimizers=False,  # the optimizer's settings are arguments of the task
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, and the arguments of the trainer's methods that are not flags."""
        return {command: {"model", "datamodule"} for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the common flags, those of the application's callbacks, and the default of ``--model``."""
        assert isinstance(parser, ArgumentParser)
        parser.task_class = self.task_class
        parser.others = [name for name in self.task_names if name != self.task_class.__name__]
        parser.set_defaults({"model": {"class_path": class_path(self.task_class)}})
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Name of the run; its folder is RUNS_DIR/APP/NAME/version_N. Null for the config file's name.",
        )
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="A checkpoint file; or best or last of the newest run of this name. fit resumes its training.",
        )
        parser.add_argument(
            "--allow_random_weights",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Allow validate, test, predict and export without --ckpt_path.",
        )
        for callback in self.callback_classes:
            key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", callback.__name__).lower()
            parser.add_lightning_class_args(callback, key)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401  # LightningCLI's
        """Parse the command line, and take all other arguments from the checkpoint, if there is one."""
        try:
            self.config = parser.parse_args(args)
            self._merge_checkpoint(parser, args)
        except ArgumentError as error:
            command = next((arg for arg in self.command_line if arg in COMMANDS), "fit")
            command_parser = self._parser(command)
            assert isinstance(command_parser, ArgumentParser)
            options = [*command_parser.get_defaults().keys(), *command_parser.task_parser().get_defaults().keys()]
            options = [key for key in options if not key.startswith(("model.class_path", "model.init_args."))]
            text = parsing_error(str(error), self.command_line, options)
            if text.startswith("there is no argument --model.") and len(self.task_names) > 1:
                text += f" with --model={self.task_class.__name__}"
            raise UserError(text) from error

    def instantiate_classes(self) -> None:
        """Create data module, task and trainer; errors of their constructors are raised unchanged."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ and str(cause).startswith(("Does not validate against any", "Problem with given")):
                cause = cause.__cause__
            if cause is error:
                raise
            raise cause from None

    def _merge_checkpoint(self, parser: LightningArgumentParser, args: Sequence[str]) -> None:
        """Complete the arguments from the checkpoint, if there is one."""
        command = self.config.subcommand
        given = self.config[command]
        if not 0 <= given.seed_everything < 2**32:
            allowed = f"must be an integer from 0 to {2**32 - 1}, or true for a random one"
            raise UserError(f"--seed_everything={given.seed_everything}: {allowed}")
        self.name_dir = Path(given.runs_dir) / self.report.app / run_name(given.name, given.config or ())
        if self.restored is None:
            if command != "fit" and not given.allow_random_weights:
                raise UserError(
                    f"{command} needs --ckpt_path: a file, or best or last of the newest run named"
                    f" {self.name_dir.name!r} in {self.name_dir.parent} (or --allow_random_weights)"
                )
            return
        self.config[command], changes = merge_config(
            command,
            self.restored["config"],
            given,
            [key for key, _ in parser.parse_args(args, defaults=False)[command].items() if key != "config"],
            lambda config: parser.parse_object({"subcommand": command, command: config})[command],
            self.task_class.changeable_args,
        )
        if is_main_process():
            for change in changes:
                print(f"changed: {change}")
        limits = {"epochs": self.config[command].trainer.max_epochs, "steps": self.config[command].trainer.max_steps}
        for name, limit in limits.items() if command == "fit" else ():
            done = self.restored["epochs"] if name == "epochs" else self.restored["steps"]
            if limit is not None and 0 <= limit <= done:
                assert self.checkpoint is not None
                if is_main_process():
                    complete_summary(self.checkpoint.resolve().parents[1], self.restored)
                trained = f"{self.checkpoint} has trained for {done} {name}"
                raise AlreadyFinished(f"nothing to do: {trained}, and --trainer.max_{name}={limit}")

    def before_instantiate_classes(self) -> None:
        """Set the arguments that select initial weights to None if there is a checkpoint: their file may be gone."""
        self._dump_config()  # config.yaml keeps them
        if self.checkpoint is not None:
            for name in self.task_class.initial_weight_args:
                self.config[self.subcommand].model.init_args[name] = None

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would replace the command line's arguments by the checkpoint's."""

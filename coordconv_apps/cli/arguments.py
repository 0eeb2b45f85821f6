"""Parse the arguments of a command: LightningCLI with the flags and rules of this package."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import Namespace, get_loader, set_loader, set_parsing_settings
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from coordconv_apps.cli.application import Application
from coordconv_apps.cli.checkpoint_config import merge_config, sections_for, trusted_config
from coordconv_apps.cli.checkpoint_state import GivenCheckpoint
from coordconv_apps.cli.command_record import CommandRecord, complete_summary
from coordconv_apps.cli.data_class import find_data_class
from coordconv_apps.cli.errors import argument_types, missing_argument_error, name_in_full, parsing_error
from coordconv_apps.cli.help import ArgumentParser
from coordconv_apps.cli.model_class import preview
from coordconv_apps.cli.start import COMMANDS, configs_help, given_command
from coordconv_apps.cli.trainer import TRAINER_DEFAULTS, CommandTrainer
from coordconv_apps.cli.value_checks import check_nulls, check_numbers, largest_sizes
from coordconv_apps.runs.folder import name_dir_of, training_of
from coordconv_apps.training.signals import Interrupts
from coordconv_apps.utils.config_files import check_yaml, class_path
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import UserError, printable

_load_yaml = get_loader("yaml")
# jsonargparse writes arguments as YAML, which does not know enumerations, such as a default of the callback Timer.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, value: dumper.represent_data(value.value))


def load_bounded_yaml(text: str) -> Any:  # noqa: ANN401  # any YAML value
    """Load YAML as jsonargparse does, except texts that would expand without bounds."""
    check_yaml(text, "a value or a file of the config")
    return _load_yaml(text)


set_loader("yaml", load_bounded_yaml, (yaml.YAMLError,))
# Otherwise {class_path: ...} as a value of an argument of any type, such as a game's, would be created.
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class AlreadyFinished(Exception):
    """The run to resume has finished already."""


class ArgumentsCLI(LightningCLI):
    """Parse the arguments of a command; a subclass creates the trainer."""

    name_dir: Path  # the folder of all runs of this name; known once the arguments are parsed

    def __init__(
        self, app: Application, args: Sequence[str] | None, record: CommandRecord, interrupts: Interrupts
    ) -> None:
        self.app = app
        self.record = record
        self.interrupts = interrupts
        self.task_class, self.command_line, self.checkpoint = preview(app, sys.argv[1:] if args is None else args)
        self.data_class = app.data_class
        if app.choose_data is not None:
            self.data_class = find_data_class(app.choose_data, self.command_line, self.checkpoint)
        self.callback_sections = [section_key(callback) for callback in app.callbacks]
        usage = f"python -m {app.package} {{}} [--config CONFIG] [--any.argument VALUE]"
        commands = {
            command: {"exit_on_error": False, "usage": usage.format(command), "description": COMMANDS[command]}
            for command in self.subcommands()
        }
        try:
            super().__init__(
                app.task_class,
                self.data_class,
                save_config_callback=None,  # written together with the run folder
                trainer_class=CommandTrainer,
                trainer_defaults=TRAINER_DEFAULTS,
                parser_class=ArgumentParser,
                subclass_mode_model=True,
                seed_everything_default=0,
                parser_kwargs={
                    "exit_on_error": False,
                    "prog": f"python -m {app.package}",
                    "description": f"{app.name}: train, test and use a network",
                    **commands,
                },
                args=self.command_line,
                auto_configure_optimizers=False,  # the optimizer's settings are arguments of the task
            )
        except ValueError as error:
            if record.running or (full := self._name_in_full(str(error))) == str(error):
                raise
            raise ValueError(full) from error
        except KeyError as error:
            if (missing := missing_argument_error(error, self.task_class, app.default_task)) is None:
                raise
            raise missing from error

    def _name_in_full(self, message: str) -> str:
        """Return a message in which the arguments of task, data and callbacks have the names of their flags."""
        if (parsed := getattr(self, "config", None)) is None:  # the error is found before
            return message
        config = parsed[parsed.subcommand]
        # A callback may have no arguments.
        sections = {key: config[key] for key in ("data", *self.callback_sections) if key in config}
        return name_in_full(message, {"model": config.model.init_args, **sections})

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static in LightningCLI: all commands
        """Return the command that is given, and the arguments of the trainer's methods that are not flags.

        Each command has a parser of its own, whose construction takes a third of a second.
        """
        command = given_command(self.command_line)
        return {name: {"model", "datamodule"} for name in ([command] if command else COMMANDS)}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--seed_everything``."""
        # Lightning's true, for a random seed, means 0, and its false leaves the generators as they are.
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of all random numbers.")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of task, data, command and callbacks, then the trainer's, of which there are most."""
        assert isinstance(parser, ArgumentParser)
        parser.task_class = self.task_class
        parser.others = [name for name in self.app.tasks() if name != self.task_class.__name__]
        parser.configs = configs_help(self.app.package)
        parser.add_lightning_class_args(self.app.task_class, "model", subclass_mode=True)
        parser.set_defaults({"model": {"class_path": class_path(self.task_class)}})
        parser.add_lightning_class_args(self.data_class, "data")
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
        for callback, section in zip(self.app.callbacks, self.callback_sections, strict=True):
            parser.add_lightning_class_args(callback, section)
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401  # LightningCLI's
        """Parse the command line, and take all other arguments from the checkpoint, if there is one."""
        try:
            self.config = parser.parse_args(args)
            command, given = self.config.subcommand, self.config[self.config.subcommand]
            command_parser = self._command_parser()
            check_nulls(command_parser, command_parser.task_parser(), given)
            if not 0 <= given.seed_everything < 2**32:
                raise UserError(f"--seed_everything={given.seed_everything}: must be an integer from 0 to {2**32 - 1}")
            self.name_dir = self._find_name_dir(given)
            if self.checkpoint is not None:
                self._merge_checkpoint(parser, args, self.checkpoint)
            elif command != "fit" and not given.allow_random_weights:
                raise UserError(
                    f"{command} needs --ckpt_path: a file, or best or last of the newest run named"
                    f" {self.name_dir.name!r} in {self.name_dir.parent} (or --allow_random_weights)"
                )
        except ArgumentError as error:
            command_parser = self._command_parser()
            options = [*command_parser.get_defaults().keys(), *command_parser.task_parser().get_defaults().keys()]
            options = [key for key in options if not key.startswith(("model.class_path", "model.init_args."))]
            types = argument_types("model", self.task_class) | argument_types("data", self.data_class)
            text = parsing_error(str(error), self.command_line, options, types)
            if text.startswith("there is no argument --model.") and len(self.app.tasks()) > 1:
                text += f" with --model={self.task_class.__name__}"
            raise UserError(text) from error
        check_numbers(self.config[self.config.subcommand])
        self.record.sizes = largest_sizes(self.config[self.config.subcommand])

    def _command_parser(self) -> ArgumentParser:
        """Return the parser of the command that is given."""
        parser = self._parser(given_command(self.command_line) or "fit")
        assert isinstance(parser, ArgumentParser)
        return parser

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

    def _find_name_dir(self, given: Namespace) -> Path:
        """Return the folder of all runs of the name that is given, or else of the run whose checkpoint is evaluated."""
        name_dir = name_dir_of(given.runs_dir, self.app.name, given.name, _config_files(given))
        if self.checkpoint is None or self.config.subcommand == "fit" or given.name is not None:
            return name_dir
        training = training_of(self.checkpoint.path)
        if training is not None and training.parent.parent.resolve() == name_dir.parent.resolve():
            return name_dir.with_name(training.parent.name)  # results are put below that run
        return name_dir

    def _merge_checkpoint(
        self, parser: LightningArgumentParser, args: Sequence[str], checkpoint: GivenCheckpoint
    ) -> None:
        """Complete the arguments from the checkpoint."""
        command = self.config.subcommand
        given = self.config[command]
        words = [arg for arg in args if not arg.startswith("--ckpt_path")]  # its name may come from a stranger, too
        typed = " ".join([*words, *(Path(path).read_text(encoding="utf-8") for path in _config_files(given))])
        names = [key for key, _ in parser.parse_args(args, defaults=False)[command].items() if key != "config"]
        saved = sections_for(command, checkpoint.state["config"], self.callback_sections)
        saved = trusted_config(saved, names, checkpoint.path, self.task_class.import_args, typed)

        def parse(config: dict[str, Any]) -> Namespace:
            return cast(Namespace, parser.parse_object({"subcommand": command, command: config})[command])

        self.config[command], changes = merge_config(saved, given, names, parse, self.task_class.changeable_args)
        keeps_data = command == "export" and "data" in saved
        if keeps_data:  # a network is exported for the size and the classes of its training
            self.config[command].data = parse(saved).data
        if is_main_process():
            for change in map(printable, changes):
                if keeps_data and change.startswith("data."):
                    print(f"ignored: {change}; export takes the data's arguments from the checkpoint")
                else:
                    print(f"changed: {change}")
        if command == "fit":
            self._check_unfinished(checkpoint)

    def _check_unfinished(self, checkpoint: GivenCheckpoint) -> None:
        """Raise `AlreadyFinished` if the checkpoint has trained as long as the command line asks for."""
        trainer, state = self.config.fit.trainer, checkpoint.state
        for name, limit, done in (
            ("epochs", trainer.max_epochs, state["epochs"]),
            ("steps", trainer.max_steps, state["steps"]),
        ):
            if limit is not None and 0 <= limit <= done:
                run = training_of(checkpoint.path.resolve())
                if run is not None and is_main_process():
                    self.record.lock.acquire(run)  # this also removes what a killed process has left
                    complete_summary(run, state)
                trained = f"{checkpoint.path} has trained for {done} {name}"
                raise AlreadyFinished(f"nothing to do: {trained}, and --trainer.max_{name}={limit}")

    def before_instantiate_classes(self) -> None:
        """Complete the task's arguments from the data, and drop those that select initial weights if they are not used.

        With a checkpoint, the file of the initial weights may be gone.
        """
        config = self.config[self.subcommand]
        arguments = config.model.init_args  # a subclass may lack some of its base class's
        names = self.task_class.args_from_data.intersection(arguments.keys())
        if unset := [name for name in names if arguments[name] is None]:
            assert self.datamodule_class is not None
            datamodule = self.datamodule_class(**config.data.as_dict())
            for name in unset:
                arguments[name] = getattr(datamodule, name)
        self._dump_config()  # config.yaml keeps the initial weights
        if self.checkpoint is not None:
            for name in self.task_class.initial_weight_args.intersection(arguments.keys()):
                arguments[name] = None

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would replace the command line's arguments by the checkpoint's."""


def _config_files(given: Namespace) -> list[str]:
    """Return the config files of a command, without configs that are mappings on the command line."""
    return [str(path) for path in given.config or () if path is not None]


def section_key(callback: type[Callback]) -> str:
    """Return the key of a callback's arguments, its name in snake case.

    >>> class RLPictures(Callback): ...
    >>> section_key(RLPictures)
    'rl_pictures'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", callback.__name__).lower()

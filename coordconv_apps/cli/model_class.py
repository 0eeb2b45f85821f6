"""Find the task class of a command before its arguments are parsed: the class determines the ``--model`` arguments.

The class is named by ``--model``, by ``model.class_path`` in a config file, or by the checkpoint, in this order.
Otherwise it is the application's default.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

from jsonargparse import ArgumentParser

from coordconv_apps.cli.application import Application
from coordconv_apps.cli.checkpoint_state import GivenCheckpoint, read_run_state
from coordconv_apps.cli.errors import argument_types, describe_type
from coordconv_apps.cli.launch import parent_launch
from coordconv_apps.cli.start import COMMANDS, check_config_texts
from coordconv_apps.runs.folder import find_checkpoint, name_dir_of
from coordconv_apps.training.task import Task
from coordconv_apps.utils.config_files import as_mapping, class_path, find_config, yaml_mapping, yaml_value
from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import UserError, one_line

_Config = tuple[str, dict[str, Any]]  # a config file, or a mapping on the command line, and its content


class Preview(NamedTuple):
    """What is known of a command before its arguments are parsed.

    Attributes:
        task_class: The task class.
        command_line: The arguments with config files first, then ``--model``, ``--data`` and ``--trainer``, then all
            other flags, so that a flag overrides them wherever it stands.
        checkpoint: The checkpoint, if one is given.
    """

    task_class: type[Task]
    command_line: list[str]
    checkpoint: GivenCheckpoint | None = None


def preview(app: Application, args: Sequence[str]) -> Preview:
    """Find the task class and the checkpoint on the command line and in config files.

    Raises:
        UserError: There is no such class, the checkpoint has another one, or a YAML text is too large or too deep.
        FileNotFoundError: There is no such checkpoint or config.
    """
    check_config_texts(app.package, args)  # again: `run` may be called without `check_command`
    command = next((i for i, arg in enumerate(args) if arg in COMMANDS), None)
    if command is None:
        return Preview(app.default_task, list(args))
    flags, others = _parse_known(args[command + 1 :])
    if flags is None:  # a flag lacks its value: parsing the whole command line reports it
        return Preview(app.default_task, list(args))
    if any(not value.strip() for value in flags.model):
        raise UserError(f"--model=: must be a task class; choose from {', '.join(app.tasks())}")
    flags.config = [find_config(value, app.package) for value in flags.config]
    configs = [*_shared_configs(args, command), *((path, yaml_mapping(path)) for path in flags.config)]
    models = [_model(config.get("model"), path) for path, config in configs]
    flag_models = [_model(value) for value in flags.model]
    named = next((str(m["class_path"]) for m in reversed(models + flag_models) if m.get("class_path")), None)
    task_class = app.default_task if named is None else find_class(named, app)
    checkpoint = None if {"-h", "--help"}.intersection(args) else _find_checkpoint(app, flags, configs)
    if checkpoint is not None:
        saved = _class_of(checkpoint, app, task_class)
        if named is not None and saved is not task_class:
            raise UserError(f"--model={task_class.__name__}: the checkpoint {checkpoint.path} is of {saved.__name__}")
        task_class = saved
    _report_ignored(models + flag_models, task_class)
    for path, config in configs:
        _check_sections(path, config, "data", "trainer")
    _check_nulls_in_mappings(models + flag_models, task_class)
    sections = [f"--config={path}" for path in flags.config]
    mappings = [value for value, m in zip(flags.model, flag_models, strict=True) if list(m) != ["class_path"]]
    sections += [f"--model={value}" for value in (*mappings, class_path(task_class))]
    sections += [f"--data={value}" for value in flags.data] + [f"--trainer={value}" for value in flags.trainer]
    return Preview(task_class, [*args[: command + 1], *sections, *others], checkpoint)


def _shared_configs(args: Sequence[str], command: int) -> list[_Config]:
    """Return the command's sections of the config files before it, which are for several commands."""
    before, _ = _parse_known(args[:command])
    found = []
    for path in before.config if before else ():
        shared = yaml_mapping(path)
        _check_sections(path, shared, args[command])
        found.append((path, as_mapping(shared.get(args[command]))))
    return found


def _find_checkpoint(app: Application, flags: argparse.Namespace, configs: Sequence[_Config]) -> GivenCheckpoint | None:
    """Return the checkpoint that flags or config files name, or the process that has started this one."""
    settings: dict[str, Any] = {}
    for _, config in configs:
        settings |= config
    for key in ("name", "runs_dir", "ckpt_path"):
        if (value := getattr(flags, key)) is not None:
            settings[key] = None if key != "runs_dir" and yaml_value(value) is None else value
    launch = parent_launch()
    ckpt_path = settings.get("ckpt_path") if launch is None else launch["ckpt_path"]
    if ckpt_path is None:
        return None
    files = [path for path in flags.config if os.path.isfile(path)]  # others are mappings
    name_dir = name_dir_of(settings.get("runs_dir", "runs"), app.name, settings.get("name"), files)
    path = find_checkpoint(str(ckpt_path), name_dir)
    return GivenCheckpoint(path, read_run_state(path))


def find_class(name: str, app: Application) -> type[Task]:
    """Return the task class that a short name such as ``PPO`` or a path such as ``rl.PPO`` means.

    Raises:
        UserError: There is no such class.
    """
    known = app.tasks()
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    found, reason = None, ""
    try:
        found = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:  # perhaps of what the user's module imports
        reason = f": {one_line(error)}"
    if isinstance(found, type) and issubclass(found, app.task_class) and not inspect.isabstract(found):
        return found
    lower = {key.lower(): key for key in known}
    close = [lower[key] for key in difflib.get_close_matches(attribute.lower(), lower, n=3, cutoff=0.5)]
    advice = f"close: {', '.join(close)}" if close else f"choose from {', '.join(known)}"
    raise UserError(f"--model={name}: there is no such task class{reason} ({advice})")


def _class_of(checkpoint: GivenCheckpoint, app: Application, chosen: type[Task]) -> type[Task]:
    """Return the class that a checkpoint's config names; ``chosen`` if it names none, as with other programs.

    The config of such a checkpoint then names it, too. Nothing is imported: a checkpoint may come from a stranger.
    """
    path = str(checkpoint.state["config"]["model"].setdefault("class_path", class_path(chosen)))
    known = {class_path(task_class): task_class for task_class in (*app.tasks().values(), chosen)}
    if path in known:
        return known[path]
    application = path.partition(".tasks.")[0]
    if application in (path, app.package):
        reason = f"which is no task class of this application; if it is your own, add --model={path}"
    else:
        reason = f"a task of another application: python -m {application}"
    raise UserError(f"--ckpt_path={checkpoint.path}: this is a checkpoint of {path}, {reason}")


def _parse_known(args: Sequence[str]) -> tuple[argparse.Namespace | None, list[str]]:
    """Return the flags that determine the class, and all other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--model", "--model.class_path", action="append", default=[])
    for name in ("data", "trainer"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("name", "runs_dir", "ckpt_path"):
        parser.add_argument(f"--{name}")
    try:
        flags, others = parser.parse_known_args(args)
    except argparse.ArgumentError:
        return None, list(args)
    given = {"name": flags.name, "runs_dir": flags.runs_dir, "ckpt_path": flags.ckpt_path}
    return flags, [f"--{key}={value}" for key, value in given.items() if value is not None] + others


def _model(model: object, config: str = "") -> dict[str, Any]:
    """Return the mapping that a value of ``model`` means: a class's name, a mapping, or a file with one."""
    if isinstance(model, str):
        file = Path(config).expanduser().parent / model
        model = yaml_mapping(str(file) if os.path.isfile(file) else model) or {"class_path": model}
    return as_mapping(model)


def _check_sections(path: str, config: dict[str, Any], *sections: str) -> None:
    """Raise `UserError` for sections that are numbers or lists and for a seed of null: jsonargparse ignores these."""
    for key in sections:
        if not isinstance(value := config.get(key), dict | str | NoneType):
            raise UserError(f"--config={path}: {key}={value}: must be a mapping of arguments")
    if config.get("seed_everything", 0) is None:
        raise UserError(f"--config={path}: seed_everything=null: must be an integer")


def _check_nulls_in_mappings(models: Sequence[dict[str, Any]], task_class: type[Task]) -> None:
    """Raise `UserError` if a mapping has null for an argument that cannot be null: jsonargparse takes the default."""
    types = argument_types("model", task_class)
    for model in models:
        given = model.get("init_args", model)
        for name, value in given.items() if isinstance(given, dict) else ():
            hint = types.get(f"model.{name}", None)
            if value is None and hint not in (None, Any) and NoneType not in get_args(hint):
                raise UserError(f"--model.{name}=null: expected {describe_type(hint)}")


def _report_ignored(models: Sequence[dict[str, Any]], task_class: type[Task]) -> None:
    """Print which arguments of another class in ``models`` the task class lacks: jsonargparse drops them silently."""
    others = [m for m in models if str(m.get("class_path", "")).rpartition(".")[2] not in ("", task_class.__name__)]
    given = {name for model in others for name in model.get("init_args") or ()}
    # jsonargparse also knows the arguments that a class passes on to its base class.
    own = ArgumentParser().add_class_arguments(task_class, fail_untyped=False) if given else ()
    names = [f"model.{name}" for name in sorted(given.difference(own))]
    if names and is_main_process():
        print(f"ignored: --model={task_class.__name__} has no {', '.join(names)}", file=sys.stderr)

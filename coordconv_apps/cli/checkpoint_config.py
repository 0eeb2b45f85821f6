"""Merge the config in a checkpoint with the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader
from jsonargparse.typing import Path_fr

from coordconv_apps.utils.errors import UserError

PLAIN_CALLBACKS = frozenset(
    f"lightning.pytorch.callbacks.{name}"
    for name in (
        "DeviceStatsMonitor",
        "EMAWeightAveraging",
        "EarlyStopping",
        "GradientAccumulationScheduler",
        "LearningRateMonitor",
        "ModelSummary",
        "RichProgressBar",
        "TQDMProgressBar",
        "Timer",
    )
)
"""Callbacks that a checkpoint may name: they write no files, and arguments that name code are refused."""

_CLASS_KEYS = frozenset(
    f".trainer.{name}" for name in ("accelerator", "callbacks", "logger", "plugins", "profiler", "strategy")
)


def sections_for(command: str, saved: dict[str, Any], callbacks: Sequence[str]) -> dict[str, Any]:
    """Return the part of a checkpoint's config that a command takes: its model and data, and for ``fit`` the rest.

    Args:
        command: The command.
        saved: The checkpoint's config.
        callbacks: The sections of the application's callbacks.
    """
    rest = ("trainer", "seed_everything", *callbacks) if command == "fit" else ()
    return {key: saved[key] for key in ("model", "data", *rest) if key in saved}


def merge_config(
    saved: dict[str, Any],
    complete: Namespace,
    given: Sequence[str],
    parse: Callable[[dict[str, Any]], Namespace],
    changeable_args: frozenset[str],
) -> tuple[Namespace, list[str]]:
    """Complete a command's arguments from ``saved``, the `sections_for` it of a checkpoint's config.

    ``parse`` completes them with defaults. The arguments with names in ``given`` are taken from ``complete``, which
    holds those of the command line, of config files, and defaults. Of the model's arguments only ``changeable_args``
    may change.

    Returns:
        The complete arguments, and a line for each that the command line changes.

    Raises:
        UserError: An argument of the model contradicts the checkpoint.
    """
    merged = parse(saved)
    changes = []
    for key in given:
        before, value = merged.get(key), complete[key]
        section, _, argument = key.replace("model.init_args.", "model.").partition(".")
        if key == "model.class_path":  # the same class, by its full or its short path
            continue
        if section in saved and before != value:
            change = f"{section}.{argument}={value} on the command line, {before} in the checkpoint"
            if section == "model" and argument not in changeable_args:
                free = ", ".join(f"model.{name}" for name in sorted(changeable_args)) or "nothing"
                raise UserError(f"--{change}: only {free} may change when a checkpoint is loaded")
            changes.append(change)
        merged[key] = value
    return merged, changes


def trusted_config(
    saved: dict[str, Any], given: Collection[str], checkpoint: Path, import_args: Collection[str], typed: str
) -> dict[str, Any]:
    """Return a checkpoint's config without classes that the command line replaces, as by ``callbacks=null``.

    Args:
        saved: The config in the checkpoint, which may come from a stranger.
        given: Names of the arguments on the command line and in config files.
        checkpoint: Its file.
        import_args: The task's arguments whose values may name code as ``module:name``.
        typed: The command line and the config files. Classes that they name as well are the user's own decision.

    Raises:
        UserError: The config names another class than the task's and `PLAIN_CALLBACKS`, or other code to import.
    """
    import_keys = {f".model.init_args.{argument}" for argument in import_args}

    def foreign(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for key, name in _code_names(config, "", import_keys):
            if not re.search(rf"(?<![\w.:]){re.escape(name)}(?![\w.:])", typed):
                yield key, name

    def is_replaced(section: str, argument: str, value: object) -> bool:
        key = f"{section}.{argument}".rstrip("+")
        is_given = key in given or any(name.startswith(f"{key}.") for name in given)
        return section != "model" and is_given and any(foreign({section: {argument: value}}))

    kept = {
        section: {key: value for key, value in part.items() if not is_replaced(section, key, value)}
        if isinstance(part, dict)
        else part
        for section, part in saved.items()
    }
    for key, name in foreign(kept):
        argument = key.removeprefix(".").replace("init_args.", "")
        raise UserError(
            f"--ckpt_path={checkpoint}: its {argument}={name} may run code or write anywhere; if you trust it, name it"
            " on the command line as well"
        )
    return kept


def _code_names(value: object, key: str, import_keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield key and value of what names code in a config: classes, files of the trainer, and modules to import.

    jsonargparse loads a text that is YAML of a list or a mapping, and for a class the file that a text names.
    """
    if isinstance(value, str) and key in import_keys:  # used as it is, never as YAML
        if ":" in value:
            yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            # jsonargparse appends to `callbacks` with callbacks+, and a class gets dict_kwargs like its init_args.
            path = f"{key}.{name}".replace("+", "").replace(".dict_kwargs", ".init_args")
            yield from _code_names(item, path, import_keys)
    elif isinstance(value, str):
        loaded = _load(value)
        if isinstance(loaded, Collection) and not isinstance(loaded, str):
            yield from _code_names(loaded, key, import_keys)
        elif _is_code(value, key) or _is_code(str(loaded), key):  # YAML drops quotes
            yield key, value
    elif isinstance(value, Collection):  # jsonargparse takes a set for a list
        for item in value:
            yield from _code_names(item, key, import_keys)


def _is_code(text: str, key: str) -> bool:
    """Return whether a text in a config names a class, other than the task's and plain callbacks, or a file of one."""
    if key.endswith(".class_path"):
        return key != ".model.class_path" and text not in PLAIN_CALLBACKS  # the task's class is checked on its own
    if not key.startswith(".trainer."):
        return False
    # Names of Lightning's choices, such as ddp and simple, are words in lower case; jsonargparse also finds the class
    # that `CSVLogger` means. A dotted name may be a function for an argument of a callback.
    is_class = key in _CLASS_KEYS and not re.fullmatch("[a-z0-9_]+", text)
    return is_class or bool(re.fullmatch(r"[^\W\d]\w*(\.\w+)+", text)) or _is_file(text)


def _load(text: str) -> object:
    """Return what jsonargparse makes of a text: the text itself unless it is YAML."""
    try:
        return get_loader("yaml")(text)
    except (yaml.YAMLError, ValueError):  # such as a date that does not exist
        return text


def _is_file(text: str) -> bool:
    """Return whether jsonargparse takes a text for a file, such as ``~/a.yaml`` and ``file:///a.yaml``."""
    try:
        Path_fr(text)
    except (TypeError, ValueError):  # such as a null character
        return False
    return True

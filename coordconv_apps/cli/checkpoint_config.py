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
                raise UserError(f"--{change}: of the model, only {free} may change")
            changes.append(change)
        merged[key] = value
    return merged, changes


def trusted_config(
    saved: dict[str, Any],
    given: Collection[str],
    checkpoint: Path,
    trusted: Sequence[str],
    import_args: Collection[str],
    typed: str,
) -> dict[str, Any]:
    """Return a checkpoint's config without code of others that the command line replaces, as by ``callbacks=null``.

    Args:
        saved: The config in the checkpoint, which may come from a stranger.
        given: Names of the arguments on the command line and in config files.
        checkpoint: Its file.
        trusted: Names of top-level packages whose code a checkpoint may name.
        import_args: The task's arguments whose values may name code as ``module:name``.
        typed: The command line and the config files. Code that they name as well is the user's own decision.

    Raises:
        UserError: The config names other code, which would be imported.
    """
    import_keys = {f".model.init_args.{argument}" for argument in import_args}

    def foreign(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
        for key, name in _code_names(config, "", import_keys):
            if re.split("[.:]", name)[0] not in trusted and name not in typed:
                yield key, name

    def is_replaced(section: str, argument: str, value: object) -> bool:
        return section != "model" and f"{section}.{argument}" in given and any(foreign({section: {argument: value}}))

    kept = {
        section: {key: value for key, value in part.items() if not is_replaced(section, key, value)}
        if isinstance(part, dict)
        else part
        for section, part in saved.items()
    }
    for key, name in foreign(kept):
        argument = key.removeprefix(".").replace("init_args.", "")
        raise UserError(
            f"--ckpt_path={checkpoint}: its {argument}={name} would import code; if you trust it, name it on the"
            " command line as well"
        )
    return kept


def _code_names(value: object, key: str, import_args: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield key and value of what names code in a config: class paths, and texts of the trainer that may be some.

    jsonargparse loads a text that is YAML of a list or a mapping, and for a class the file that a text names.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _code_names(item, f"{key}.{name}", import_args)
    elif isinstance(value, str) and isinstance(loaded := _load(value), Collection) and not isinstance(loaded, str):
        yield from _code_names(loaded, key, import_args)
    elif isinstance(value, Collection) and not isinstance(value, str):  # jsonargparse takes a set for a list
        for item in value:
            yield from _code_names(item, key, import_args)
    elif isinstance(value, str):
        dotted = re.fullmatch(r"\w+(\.\w+)+", value) and not value[0].isdigit()
        of_trainer = key.startswith(".trainer.")
        if (
            (dotted and (of_trainer or key.endswith(".class_path")))
            or (of_trainer and _is_file(value))
            or (key in import_args and ":" in value)
        ):
            yield key, value


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

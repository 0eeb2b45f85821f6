"""Find the class of the data before the arguments of a command are parsed: it determines the ``--data`` arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from coordconv_apps.cli.checkpoint_state import GivenCheckpoint
from coordconv_apps.cli.start import given_command
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.utils.config_files import as_mapping, yaml_mapping, yaml_value
from coordconv_apps.utils.errors import UserError

DataChoice = Callable[[Mapping[str, Any]], type[DataModule]]
"""Returns the class of the data for those of its arguments that are given, such as ``{"source": "coco"}``."""


def find_data_class(choose: DataChoice, args: Sequence[str], checkpoint: GivenCheckpoint | None) -> type[DataModule]:
    """Return the class of the data that config files and flags choose, or else the checkpoint.

    Args:
        choose: The application's choice.
        args: The command line.
        checkpoint: The checkpoint, if one is given.

    Raises:
        UserError: The checkpoint's data have another class, or those of a config file that a flag overrides.
    """
    arguments = list(_data_arguments(args))
    given = dict(arguments)  # later ones override
    before = {} if checkpoint is None else checkpoint.state["config"].get("data") or {}
    chosen = choose({**before, **given})
    for key, value in arguments:
        if value != given[key] and (other := choose({**given, key: value})) is not chosen:
            raise UserError(
                f"--data.{key}={given[key]}: selects {chosen.__name__}, but the config has arguments of"
                f" {other.__name__} (data.{key}={value}); choose a config with data.{key}={given[key]}"
            )
    if checkpoint is not None and before and choose(before) is not chosen:
        changed = ", ".join(f"--data.{k}={given[k]}" for k in given if given[k] != before.get(k) and k in before)
        raise UserError(
            f"{changed}: selects {chosen.__name__}, but the checkpoint {checkpoint.path} was trained with"
            f" {choose(before).__name__}, which cannot be replaced"
        )
    return chosen


def _data_arguments(args: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the arguments of the data in config files and flags, in their order.

    >>> list(_data_arguments(["fit", "--data.source", "coco", "--data.seed=3", "--model.lr=1"]))
    [('source', 'coco'), ('seed', 3)]
    """
    command = given_command(args)
    for arg, following in zip_longest(args, args[1:], fillvalue=""):
        flag, is_joined, value = arg.partition("=")
        value = value if is_joined else following
        if flag in ("--config", "-c"):
            config = yaml_mapping(value)
            data = as_mapping(config.get("data")) or as_mapping(as_mapping(config.get(str(command))).get("data"))
            yield from data.items()
        elif flag == "--data":
            yield from yaml_mapping(value).items()
        elif flag.startswith("--data."):
            yield flag.removeprefix("--data."), yaml_value(value)

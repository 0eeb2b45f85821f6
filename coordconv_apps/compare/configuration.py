"""Configurations of runs as rows of a table: all arguments, and those in which runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BOOKKEEPING = frozenset({"name", "runs_dir", "config", "ckpt_path"})
"""Arguments that only say where files are."""


def arguments(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a `config.yaml` by the name under which the command line takes them.

    >>> arguments({"model": {"class_path": "rl.PPO", "init_args": {"lr": 0.1, "layers": [1, 2]}}, "name": "a"})
    {'model': 'rl.PPO', 'model.lr': '0.1', 'model.layers': '[1, 2]'}
    """
    return dict(_arguments(config, ""))


def _arguments(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key == "class_path":
            yield prefix.removesuffix("."), str(value)
        elif key == "init_args" and isinstance(value, dict):
            yield from _arguments(value, prefix)
        elif isinstance(value, dict) and value:
            yield from _arguments(value, f"{name}.")
        elif name not in BOOKKEEPING:
            yield name, "null" if value is None else str(value)


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each argument in which configurations differ: its name, and its value in each of them.

    >>> differences({"none": {"model": {"coords": "none", "lr": 1}}, "xy": {"model": {"coords": "xy", "lr": 1}}})
    [['model.coords', 'none', 'xy']]
    """
    flat = [arguments(config) for config in configs.values()]
    names = dict.fromkeys(name for of_run in flat for name in of_run)
    rows = [[name, *(of_run.get(name, "") for of_run in flat)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]

"""Write and read ``config.yaml``, the arguments that a run was started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from coordconv_apps.utils.config_files import as_mapping
from coordconv_apps.utils.files import atomic_write


def write_config(folder: Path, config: dict[str, Any], epochs: int) -> None:
    """Write ``config.yaml``; if a resumed run had another one, keep it as ``config_until_epoch_<epochs>.yaml``.

    If a run is resumed several times after the same epoch, ``_2``, ``_3`` and so on are added to the name.
    """
    path, content = folder / "config.yaml", yaml.safe_dump(config, sort_keys=False)
    if path.is_file() and path.read_bytes() == content.encode():
        return
    with atomic_write(path) as file:
        file.write(content)
        file.flush()  # raises an error if the disk is full
        if path.is_file():
            kept, number = path.with_name(f"config_until_epoch_{epochs}.yaml"), 2
            while kept.exists():
                kept, number = path.with_name(f"config_until_epoch_{epochs}_{number}.yaml"), number + 1
            path.rename(kept)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's `config.yaml`; an empty dictionary where there is none that can be read."""
    try:
        return as_mapping(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # a UnicodeDecodeError is a ValueError
        return {}


def read_argument(folder: Path, name: str) -> object:
    """Read an argument of a run, such as `model.game`, from its `config.yaml`; None where the file does not have it."""
    value: Any = read_config(folder)
    try:
        for key in name.split("."):
            if key not in value:  # an argument of a class
                value = value["init_args"]
            value = value[key]
    except (KeyError, TypeError):
        return None
    return value

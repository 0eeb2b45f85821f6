"""Read the state of a run from a checkpoint, which may be damaged or of another program."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch

from coordconv_apps.training.checkpoints import RunState
from coordconv_apps.utils.config_files import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.files import check_regular_file
from coordconv_apps.utils.torch_files import check_torch_file


class GivenCheckpoint(NamedTuple):
    """The file that ``--ckpt_path`` means, and the state of the run that wrote it."""

    path: Path
    state: RunState


def read_run_state(path: Path) -> RunState:
    """Return the `RunState` in a checkpoint; for a checkpoint of another Lightning program, its model arguments only.

    Raises:
        UserError: The file is not a checkpoint, or it is damaged.
    """
    try:
        check_regular_file(path)
        check_torch_file(path, f"--ckpt_path={path}")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not check the checksums
        if damaged is not None:
            raise UserError(
                f"--ckpt_path={path}: damaged, the checksum of {damaged} is wrong; choose another checkpoint"
            )
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if "run" in checkpoint:
            state: RunState = checkpoint["run"]
            state.setdefault("steps", checkpoint["global_step"])  # which older ones lack
        else:
            state = _state_of_other_program(checkpoint)
        _check_run_state(state)
        return state
    except UserError:
        raise
    except Exception as error:  # other files raise errors of many kinds
        raise UserError(f"--ckpt_path={path}: not a readable checkpoint") from error


def _state_of_other_program(checkpoint: dict[str, Any]) -> RunState:
    saved = checkpoint.get("hyper_parameters", {})
    model = {"init_args": {k: v for k, v in saved.items() if not k.startswith("_")}}
    if "_class_path" in saved:  # saved by LightningCLI
        model["class_path"] = saved["_class_path"]
    return RunState(
        place=None,
        epochs=checkpoint["epoch"],
        steps=checkpoint["global_step"],
        log_step=-1,
        metrics={},
        best=None,
        config={"model": model},
    )


def _check_size(config: dict[str, Any]) -> None:
    """Raise an error for a config that is too large, counting again what its parts share, or too deep."""
    level: list[object] = [config]
    values = characters = 0
    for _ in range(MAX_DEPTH):
        parts, level = level, []
        for part in parts:
            if isinstance(part, str):
                characters += len(part)
            elif isinstance(part, dict | list | tuple | set | frozenset):
                if type(part) not in (dict, list, tuple, set, frozenset):  # an OrderedDict may hide its items
                    raise TypeError(f"{type(part)} in a config")
                values += len(part)
                level += part.values() if isinstance(part, dict) else part
            if values > MAX_VALUES or characters > MAX_BYTES:
                raise ValueError("too large")
    if level:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")


def _check_run_state(state: RunState) -> None:
    """Raise an error, which `read_run_state` replaces by its own, if a part of a state has a wrong type."""
    config = state["config"]
    _check_size(config)
    if not all(isinstance(config.get(section), dict | NoneType) for section in ("model", "data", "trainer")):
        raise TypeError("a section of the config is no dictionary")
    if not isinstance(config["model"].get("init_args", {}), dict):
        raise TypeError("the model's arguments are no dictionary")
    for count in (state["epochs"], state["steps"], state["log_step"]):
        if not isinstance(count, int):
            raise TypeError(f"{count} is no count")
    if not isinstance(state["metrics"], dict) or not isinstance(state["best"], dict | NoneType):
        raise TypeError("the metrics are no dictionary")

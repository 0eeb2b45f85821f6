"""Read and write ``summary.json``, the record of one command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from coordconv_apps.utils.config_files import as_mapping
from coordconv_apps.utils.files import atomic_write

Status = Literal["running", "finished", "interrupted", "failed"]


class Summary(TypedDict, total=False):
    """The content of ``summary.json``. One that is missing or of an older version lacks keys."""

    app: str
    package: str  # as in ``python -m <package>``
    name: str
    command: str
    status: Status
    error: str | None
    metrics: dict[str, Any]  # the latest values; None in the file: NaN or infinite
    checkpoint: str | None  # that of a training, as soon as it has one; else the one that was loaded
    best: Any  # of a training that has a best.ckpt: its path (checkpoint), metric, value and epoch; else None
    run_facts: dict[str, float | str]
    parameters: int  # trainable ones
    coords: str
    headline: str  # the validation metric that comparisons plot
    monitor_mode: Literal["min", "max"]  # whether small or large values of it are good
    seed: int
    epochs: int  # complete ones of the training
    steps: int  # of its optimizers
    seconds: float  # of a training, with those before it was resumed
    device: str
    precision: str
    world_size: int
    process: str  # and its machine
    versions: dict[str, str | None]  # of packages; None: not installed


def read_summary(folder: Path) -> Summary:
    """Return the ``summary.json`` in ``folder``; an empty one if it is missing or unreadable."""
    try:
        return cast(Summary, as_mapping(json.loads((folder / "summary.json").read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        return {}


def write_summary(folder: Path, summary: Summary) -> None:
    """Write ``summary.json`` in ``folder``. NaN and infinity become null."""
    with atomic_write(folder / "summary.json") as file:
        json.dump(_finite(summary), file, indent=2, allow_nan=False)
        file.write("\n")


def _finite(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

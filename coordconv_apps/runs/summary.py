"""Read and write ``summary.json``, the record of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from coordconv_apps.utils.config_files import as_mapping
from coordconv_apps.utils.files import atomic_write


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the ``summary.json`` in ``folder``; an empty one if it is missing or unreadable."""
    try:
        return as_mapping(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
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

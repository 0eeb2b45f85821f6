"""Count the lines of a program at which the host waits for the device."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from pathlib import Path

from tests.simcuda.simulated.runtime import synchronize

_counts: Counter[str] = Counter()


def wait(reason: object) -> None:
    """Wait for the device, and count the line of the program that causes it."""
    synchronize()
    if "SIM_CUDA_WAITS" in os.environ:
        root = os.environ.get("SIM_CUDA_ROOT", os.getcwd())
        frames = [frame for frame in traceback.extract_stack() if _is_of_program(frame.filename, root)]
        place = f"{os.path.relpath(frames[-1].filename, root)}:{frames[-1].lineno}" if frames else "elsewhere"
        _counts[f"{place}  {reason}"] += 1


def _is_of_program(file: str, root: str) -> bool:
    return file.startswith(root) and ".venv" not in file and "simcuda" not in file


def write() -> None:
    """Write the counts to ``$SIM_CUDA_WAITS.<process id>``."""
    lines = [f"{number:6d}  {place}\n" for place, number in _counts.most_common()]
    Path(f"{os.environ['SIM_CUDA_WAITS']}.{os.getpid()}").write_text("".join(lines))

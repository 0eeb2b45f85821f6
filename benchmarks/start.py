"""Measure seconds until something happens: imports, the help of a command, a mistake, and the first training step.

    python benchmarks/start.py                # every table, ten minutes
    python benchmarks/start.py --only help
    python benchmarks/start.py --repeats 1    # a first look

Each row is a process of its own, from its start to its end. The processes of a table take turns, so that other load on
the machine affects all rows; a row shows the median over the rounds. The ratio is that to a process that imports torch,
Lightning and torchvision as usual and does nothing else. Commands can be faster than that: they import without the
garbage collector (`coordconv_apps.utils.imports`), as the second row of the first table does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jsonargparse.typing import PositiveInt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from coordconv_apps.runs.environment import device_name

ROOT = Path(__file__).resolve().parents[1]


class Row(NamedTuple):
    """A process to time: the arguments of Python, and the exit status that it must have."""

    args: tuple[str, ...]
    status: int = 0

    @property
    def name(self) -> str:
        """What a user would type."""
        if self.args[0] == "-c":
            return f"`{self.args[1]}`"
        shown = [arg for arg in self.args if not arg.startswith(("--runs_dir", "--trainer"))]
        return f"`python {' '.join(shown)}`"


REFERENCE = Row(("-c", "import torch, lightning.pytorch, torchvision"))

IMPORTS = (
    "import gc; gc.disable(); import torch, lightning.pytorch, torchvision; gc.freeze()",
    "import torch",
    "from coordconv_apps import CoordConv2d",
    "from rl import CoordConvCnnPolicy",
    "from detection import FasterRCNN",
)

APPLICATIONS = ("classification", "coordconv_apps.coordinates", "detection", "generative", "rl")

QUICK_STARTS = (
    ("classification", "quickstart"),
    ("coordconv_apps.coordinates", "classification_uniform"),
    ("detection", "quickstart"),
    ("generative", "quickstart_dcgan"),
    ("generative", "quickstart_vae"),
    ("rl", "quickstart"),
)


def tables(runs_dir: str) -> dict[str, list[Row]]:
    """Return the rows of each table; trainings write into a folder."""
    mistaken = Row(("-m", "detection", "fit", "--config", "quickstart", "--model.coord=xy"), status=2)
    helps = [Row(("-m", app, "fit", "--help")) for app in APPLICATIONS]
    command_line = [Row(("-m", "detection", "--help")), Row(("-m", "coordconv_apps.compare", "--help"))]
    until_first_step = ("--trainer.accelerator=cpu", "--trainer.callbacks=benchmarks.callbacks.ExitAfterStep")
    return {
        "imports": [Row(("-c", code)) for code in IMPORTS],
        "help": [*command_line, *helps, mistaken],
        "step": [
            Row(("-m", app, "fit", "--config", config, f"--runs_dir={runs_dir}", *until_first_step))
            for app, config in QUICK_STARTS
        ],
    }


def seconds(row: Row) -> float:
    """Return how long a process runs.

    Raises:
        RuntimeError: It ends with another status than it must.
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *row.args], cwd=ROOT, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode != row.status:
        raise RuntimeError(f"{row.name}: exit status {done.returncode}\n{done.stderr}")
    return taken


def print_table(title: str, rows: Sequence[Row], repeats: int) -> None:
    """Time the rows and the reference in turns, and print a table."""
    everything = (REFERENCE, *rows)
    times: dict[Row, list[float]] = {row: [] for row in everything}
    seconds(REFERENCE)  # it reads most files for the first time
    for _ in range(repeats):
        for row in everything:
            times[row].append(seconds(row))
    print(f"\n| {title} | seconds | ratio |\n| --- | --- | --- |")
    for row, taken_by in times.items():
        ratio = statistics.median(own / base for own, base in zip(taken_by, times[REFERENCE], strict=True))
        print(f"| {row.name} | {statistics.median(taken_by):.2f} | {ratio:.2f} |", flush=True)


TITLES = {"imports": "import in Python", "help": "command without training", "step": "until the first training step"}


def main() -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description="Seconds until something happens.")
    parser.add_argument("--only", choices=list(TITLES), help="print this table alone")
    parser.add_argument("--repeats", type=PositiveInt, default=5, help="rounds, whose median is printed")
    options = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{device_name(torch.device('cpu'), 1)}, OMP_NUM_THREADS: {threads}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as runs_dir:
        for name, rows in tables(runs_dir).items():
            if options.only in (None, name):
                print_table(TITLES[name], rows, options.repeats)


if __name__ == "__main__":
    main()

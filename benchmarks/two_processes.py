"""Measure how training scales from one process to two on a CPU: samples per second of the quick starts, and efficiency.

    python benchmarks/two_processes.py                 # four minutes on two cores
    python benchmarks/two_processes.py --only rl --effort 4

Every process has one thread and its own batch of the config's size. A row has three trainings through the command line:
one process; two processes that know nothing of each other; and two that train one network (DDP over gloo). Efficiency
is samples per second divided by twice those of one process. Two separate processes show what the machine loses without
any communication, because they share caches and memory; the rest is the price of DDP.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jsonargparse.typing import PositiveFloat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from coordconv_apps.runs.environment import device_name

ROOT = Path(__file__).resolve().parents[1]


class Workload(NamedTuple):
    """A quick start, how many samples a process uses in a step, and how many steps take about 8 seconds."""

    config: str
    samples: int
    steps: int
    two: tuple[str, ...] = ()  # arguments that count over all processes, for two of them


WORKLOADS = {
    "classification": Workload("quickstart", 64, 60),
    "detection": Workload("quickstart", 16, 80),
    "generative": Workload("quickstart_dcgan", 16, 300),
    "rl": Workload(
        "quickstart", 16 * 64, 12, ("--data.num_envs=32", "--model.batch_size=512", "--data.steps_per_epoch=16384")
    ),
}

DDP = ("--trainer.devices=2", "--trainer.strategy=ddp")


def start(app: str, workload: Workload, folder: Path, steps: int, extra: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a training that writes the seconds of a step to ``folder/seconds``."""
    folder.mkdir()
    args = ["fit", "--config", workload.config, f"--runs_dir={folder / 'runs'}", "--model.coords=xy", *extra]
    args += ["--trainer.accelerator=cpu", "--trainer.limit_val_batches=0"]
    args += ["--trainer.callbacks=benchmarks.callbacks.TimeSteps", f"--trainer.callbacks.file={folder / 'seconds'}"]
    args += [f"--trainer.callbacks.steps={steps}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", app, *args],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def step_seconds(process: subprocess.Popen[str], folder: Path) -> float:
    """Wait for a training, and return the seconds of a step.

    Raises:
        RuntimeError: The training failed.
    """
    _, errors = process.communicate()
    if not (folder / "seconds").is_file():
        raise RuntimeError(f"exit status {process.returncode}\n{errors}")
    return float((folder / "seconds").read_text(encoding="utf-8"))


def rates(app: str, workload: Workload, folder: Path, steps: int) -> tuple[float, float, float]:
    """Return samples per second of one process, of two separate ones together, and of two that train one network."""
    alone = step_seconds(start(app, workload, folder / "one", steps), folder / "one")
    names = ("first", "second")
    pair = [start(app, workload, folder / name, steps) for name in names]
    separate = [step_seconds(process, folder / name) for process, name in zip(pair, names, strict=True)]
    together = step_seconds(
        start(app, workload, folder / "two", steps, (*DDP, *workload.two)),
        folder / "two",
    )
    return workload.samples / alone, sum(workload.samples / each for each in separate), 2 * workload.samples / together


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="Samples per second of one process and of two, on a CPU.")
    parser.add_argument("--only", choices=list(WORKLOADS), help="measure this application alone")
    parser.add_argument("--effort", type=PositiveFloat, default=1.0, help="multiplies the number of steps")
    options = parser.parse_args()
    print(f"{device_name(torch.device('cpu'), 1)}, one thread per process, torch {torch.__version__}\n")
    heads = ["samples per second", "in each process", "one", "two separate", "efficiency", "two with DDP", "efficiency"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for app, workload in WORKLOADS.items():
        if options.only not in (None, app):
            continue
        with tempfile.TemporaryDirectory() as folder:
            steps = max(1, round(options.effort * workload.steps))
            one, separate, ddp = rates(app, workload, Path(folder), steps)
        unit = "steps of games" if app == "rl" else "canvases" if app == "detection" else "images"
        cells = [f"`{app}`, {workload.config}", f"{workload.samples:,} {unit}", f"{one:,.0f}"]
        cells += [f"{rate:,.0f} | {100 * rate / (2 * one):.0f} %" for rate in (separate, ddp)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Commands in processes of their own, and pairs of processes that train together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

TWO_PROCESSES = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
"""Flags for a training in two processes."""


def run_module(module: str, *args: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module args`` from the root of the repository; the caller checks its status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_pair(
    command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 300
) -> list[subprocess.CompletedProcess[str]]:
    """Run a Python program twice at once as the two ranks of one training, as torchrun does.

    Args:
        command: Arguments of the Python interpreter: a script or ``-m module``, and its arguments.
        environment: Further environment variables.
        timeout: Seconds after which both are killed.

    Returns:
        Both ended processes, in the order of their ranks.
    """
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    shared |= environment or {}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**shared, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(started, outputs, strict=True)
    ]


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until a condition is true, so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(0.02)


def processes_with(argument: str) -> Iterator[int]:
    """Yield the ids of running processes that have an argument, on systems with ``/proc``."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument in path.read_text().split("\0"):
                yield int(path.parent.name)
        except OSError:  # it has just ended
            continue


def pair_has_started(runs: Path) -> bool:
    """Whether a command with this ``--runs_dir`` has made its run folder and started its second process.

    Before the folder, the second one can be a helper of an import: it has the command's arguments for a moment.
    """
    return any(runs.glob("*/*/version_0")) and len(list(processes_with(f"--runs_dir={runs}"))) == 2

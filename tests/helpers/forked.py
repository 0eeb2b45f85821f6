"""Commands in processes that are forked from one that has imported everything, so that each starts within a second."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.helpers.processes import ROOT, free_port

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.helpers.preloaded"])


def _run(
    module: str,
    args: Sequence[str],
    environment: Mapping[str, str],
    log: str,
    errors: str,
    before: Callable[[], None] | None,
) -> None:
    """Run a command as ``python -m module args`` or ``python module.py args`` does, with its output in files."""
    os.setsid()
    os.environ.update(environment)
    os.chdir(ROOT)
    for stream, path in ((1, log), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # those of the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.argv = [module, *args]
    if before is not None:
        before()
    if module.endswith(".py"):
        runpy.run_path(module, run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def start(
    module: str,
    *args: str,
    log: Path,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """Start a command.

    Args:
        module: As in ``python -m module``, or the path of a script.
        args: The command line.
        log: File to append the command's output to.
        errors: File to append its standard error to; ``log`` if None.
        environment: Variables to add to those that the first command of the tests had.
        before: Function of a module to call first.
    """
    process = _CONTEXT.Process(
        target=_run, args=(module, args, dict(environment or {}), str(log), str(errors or log), before)
    )
    process.start()
    return process


def finish(*processes: ForkServerProcess, timeout: float = 300) -> list[int | None]:
    """Wait for commands to end, and kill them after ``timeout`` seconds; return their statuses, as `subprocess`."""
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
        process.join()
    return [process.exitcode for process in processes]


def run(
    module: str,
    *args: str,
    log: Path,
    errors: Path | None = None,
    processes: int = 1,
    before: Callable[[], None] | None = None,
    timeout: float = 300,
    check: bool = True,
) -> list[int | None]:
    """Run a command to its end, in one process or in several ranks, as torchrun starts them; return the statuses.

    All must be 0 unless ``check`` is false.
    """
    ranks: list[dict[str, str]] = [{}]
    if processes > 1:
        port = str(free_port())
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "NODE_RANK": "0"}
        ranks = [{**shared, "LOCAL_RANK": str(rank)} for rank in range(processes)]
    started = [
        start(module, *args, log=log, errors=errors, environment=environment, before=before) for environment in ranks
    ]
    statuses = finish(*started, timeout=timeout)
    assert not check or statuses == [0] * processes, f"{module} {' '.join(args)}: {statuses}\n{log.read_text()[-3000:]}"
    return statuses

"""The processes of one command: what the first one passes to the others, and how all of them end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, TypedDict

import torch

from coordconv_apps.utils.distributed import is_first_here

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

LAUNCH_VARIABLE = "COORDCONV_LAUNCH"
GRACE = 10.0  # seconds that a process gets to end by itself when another one has failed


class Launch(TypedDict):
    """What the first process of a command tells those that it starts."""

    run_dir: str
    ckpt_path: str | None


def tell_launched(launch: Launch) -> None:
    """Tells the processes that Lightning is about to start, with the same arguments, what this one has chosen."""
    os.environ[LAUNCH_VARIABLE] = json.dumps(launch)


def parent_launch() -> Launch | None:
    """What the process has chosen that started this one; None if this is the first."""
    if is_first_here() or LAUNCH_VARIABLE not in os.environ:
        return None
    told: Launch = json.loads(os.environ[LAUNCH_VARIABLE])
    return told


def end_processes(trainer: Trainer | None, failed: bool) -> None:
    """Ends what a command has started: its process group, and the processes that Lightning launched.

    Args:
        trainer: The command's trainer, if it came that far.
        failed: Whether the command failed or was interrupted. The others may then wait for this process forever.
    """
    if failed and not is_first_here():
        # From here on the first process may end this one: that is no interruption to tell of.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.pop(LAUNCH_VARIABLE, None)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # whoever waits for this process sees that it is gone
    if failed and not is_first_here():
        _wait_for_the_first()
    launcher = None if trainer is None else trainer.strategy.launcher
    watched = getattr(launcher, "procs", [])
    launched_here = [p for p in watched if isinstance(p, subprocess.Popen)]
    # Lightning's observer, which looks every few seconds, kills this process when one of these has ended badly.
    watched.clear()
    for process in launched_here:
        deadline = time.monotonic() + GRACE
        while failed and process.poll() is None and time.monotonic() < deadline:
            process.terminate()  # more than once: the first only asks it to stop after its batch
            time.sleep(0.1)
        if failed:
            process.kill()  # if it still waits for this one
        process.wait()  # it may have more to do than this one


def _wait_for_the_first() -> None:
    """Lets the first process end this one: it would be killed, not stopped, if this one ended with an error first."""
    first = os.getppid()
    deadline = time.monotonic() + GRACE
    while os.getppid() == first and time.monotonic() < deadline:
        time.sleep(0.05)

"""The processes of one command: which one speaks, what they tell each other, and that none is left behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

import torch
from lightning.pytorch.utilities import rank_zero_only

from coordconv_apps.running.errors import debugging

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Trainer

LAUNCH_VARIABLE = "COORDCONV_LAUNCH"
GRACE = 10.0  # seconds that a process gets to end by itself when another one has failed

HARMLESS = (
    # num_workers is an argument of every application, described in its help.
    ".*does not have many workers which may be a bottleneck.*",
    # What is logged at each step only adds to the means over an epoch.
    "The number of training batches .* is smaller than the logging interval.*",
    # A callback of the training, such as early stopping, has no part in another command.
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided.*",
    # Lightning's use of torch and jsonargparse, where these are newer.
    r"\s*(By default only one JsonargparseDeprecationWarning|[\w.` ]+ was deprecated in v4)",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


class Launch(TypedDict):
    """What the first process of a command tells those that it starts."""

    run_dir: str
    ckpt_path: str | None


def is_main_process() -> bool:
    """Whether this is the process that writes files and prints: the first one of the first machine."""
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def tell_launched(launch: Launch) -> None:
    """Tells the processes that Lightning is about to start, with the same arguments, what this one has chosen."""
    os.environ[LAUNCH_VARIABLE] = json.dumps(launch)


def launched() -> Launch | None:
    """What the process has chosen that started this one; None if this is the first."""
    if is_first_here() or LAUNCH_VARIABLE not in os.environ:
        return None
    told: Launch = json.loads(os.environ[LAUNCH_VARIABLE])
    return told


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's notes, and warnings known to be harmless, off the terminal, unless debugging."""
    if debugging():
        yield
        return
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


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

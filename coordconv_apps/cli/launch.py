"""Processes of one command: pass the run folder to those that Lightning starts, and end all of them together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import torch
from lightning.pytorch import Trainer

from coordconv_apps.training.lightning_internals import launched_processes
from coordconv_apps.training.signals import STOPPING_SIGNALS, Interrupted, Interrupts
from coordconv_apps.utils.distributed import is_first_here

if TYPE_CHECKING:
    from coordconv_apps.cli.command_record import CommandRecord

LAUNCH_VARIABLE = "COORDCONV_LAUNCH"
GRACE = 10.0
"""Seconds in which a process can end by itself after another one has failed."""

REPORT_AFTER = 10.0
"""Seconds that a command waits for other machines without a word."""


class Launch(TypedDict):
    """Values that the first process of a command passes to those that it starts."""

    run_dir: str
    ckpt_path: str | None
    pid: int  # of the first process


def pass_to_launched(launch: Launch) -> None:
    """Pass values to the processes that Lightning is about to start with the same arguments."""
    if is_first_here():  # others start none, and would take the values for those of a parent
        os.environ[LAUNCH_VARIABLE] = json.dumps(launch)


def hold_signals_until_connected(trainer: Trainer, record: CommandRecord, interrupts: Interrupts) -> None:
    """Hold the `STOPPING_SIGNALS` until this process waits for the others to connect; a signal then ends the command.

    An exception while Lightning starts a process would leave that process behind. Processes that Lightning starts also
    inherit the block, and keep it until they are connected: if a signal ended one of them before, Lightning would kill
    the first one.
    """
    if trainer.world_size == 1:
        return
    strategy, launch = trainer.strategy, parent_launch()
    is_main_thread = threading.current_thread() is threading.main_thread()  # others handle no signals
    connect, stop = strategy.setup_environment, partial(_exit_at_once, trainer, record)

    def connect_and_release() -> None:
        try:
            if launch is not None:
                with ended_with(launch["pid"]):
                    connect()
            else:
                with stopped_by_signals(stop) if is_main_thread else nullcontext():
                    if interrupts.requested:  # another thread, which does not block it, got it
                        stop(interrupts.requested)
                    connect()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING_SIGNALS)
            interrupts.release()

    interrupts.hold()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
    strategy.setup_environment = connect_and_release  # type: ignore[method-assign]  # there is no hook after it


@contextmanager
def ended_with(parent: int) -> Iterator[None]:
    """End this process if its parent has ended, for which a library would wait in vain."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.5):
            if os.getppid() != parent:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


@contextmanager
def stopped_by_signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call ``stop`` in a thread if one of the `STOPPING_SIGNALS` comes while the main thread waits within a library.

    Python's handlers run in the main thread only, and not before it is back from the library. They get a second to act.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_over = threading.Event()

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING_SIGNALS)  # in this thread
        while number := os.read(reader, 1):
            if number[0] in STOPPING_SIGNALS and not is_over.wait(1):
                stop(number[0])

    before = signal.set_wakeup_fd(writer)  # gets the number of a signal at once
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def report_waiting(trainer: Trainer) -> None:
    """Print a line if the processes of other machines are not there some seconds after this one."""
    if trainer.num_nodes == 1 or not is_first_here():
        return
    connect = trainer.strategy.setup_environment
    where = f"{os.environ.get('MASTER_ADDR', 'unknown')}:{os.environ.get('MASTER_PORT', 'unknown')}"
    line = (
        f"waiting for the processes of {trainer.num_nodes} machines (--trainer.num_nodes) at MASTER_ADDR:MASTER_PORT"
        f" {where}; the same command has to run on each, see docs/many-machines.md"
    )

    def connect_or_report() -> None:
        timer = threading.Timer(REPORT_AFTER, print, [line], {"file": sys.stderr, "flush": True})
        timer.daemon = True
        timer.start()
        try:
            connect()
        finally:
            timer.cancel()

    trainer.strategy.setup_environment = connect_or_report  # type: ignore[method-assign]  # there is no hook before it


def parent_launch() -> Launch | None:
    """Return the values that the parent process has passed; None in the first process."""
    if is_first_here() or LAUNCH_VARIABLE not in os.environ:
        return None
    launch: Launch = json.loads(os.environ[LAUNCH_VARIABLE])
    return launch


def _exit_at_once(trainer: Trainer, record: CommandRecord, signum: int) -> None:
    """End the processes that Lightning launched, and this one, whose main thread cannot. Nothing is saved yet."""
    watched = launched_processes(trainer)
    launched = list(watched)
    watched.clear()  # see `end_processes`
    for process in launched:
        process.kill()
    try:
        record.finish("interrupted", Interrupted(signum))
    finally:
        os._exit(128 + signum if is_first_here() else 0)


def end_processes(trainer: Trainer | None, failed: bool) -> None:
    """End the process group of a command, and the processes that Lightning launched.

    If it ``failed`` or was interrupted, the others might wait for this process forever.
    """
    if failed and not is_first_here():
        # The first process may end this one now, which is not an interruption to report.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.pop(LAUNCH_VARIABLE, None)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # The others stop waiting. NCCL first completes what has begun, which after a failure may never end.
        disconnect = torch.distributed.destroy_process_group
        if failed:
            thread = threading.Thread(target=disconnect, daemon=True)
            thread.start()
            thread.join(GRACE)
        else:
            disconnect()
    if failed and not is_first_here():
        # Wait until the first process ends this one. If this one exited first, Lightning would kill the first.
        first = os.getppid()
        deadline = time.monotonic() + GRACE
        while os.getppid() == first and time.monotonic() < deadline:
            time.sleep(0.05)
    watched = [] if trainer is None else launched_processes(trainer)
    launched_here = [p for p in watched if isinstance(p, subprocess.Popen)]
    # Lightning's observer polls them, and kills this process if one of them has failed.
    watched.clear()
    for process in launched_here:
        deadline = time.monotonic() + GRACE
        while failed and process.poll() is None and time.monotonic() < deadline:
            process.terminate()  # repeatedly: the first signal only asks it to stop after its batch
            time.sleep(0.1)
        if failed:
            process.kill()  # it may still wait for this one
        try:
            process.wait()  # it may have more work than this one
        except Interrupted:
            failed = True
            process.kill()
            process.wait()

"""Handle SIGINT (Ctrl-C), SIGTERM and SIGUSR1: a training saves ``last.ckpt`` and stops, other commands stop at once.

During training the first signal is only recorded; `Checkpoints` checks for it after each batch, saves and stops. A
second signal stops at once. The exit status is 128 + signal number, as in shells: 130 for SIGINT, 143 for SIGTERM
and, on Linux, 138 for SIGUSR1.

Jobs of SLURM often get SIGUSR1 before their time is up. Lightning's own handler would write a checkpoint that nothing
resumes from, at another moment in each process, and requeue a job that starts from the beginning.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from coordconv_apps.utils.distributed import is_first_here
from coordconv_apps.utils.errors import causes

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))


class Interrupted(BaseException):
    """Raised when a signal asks this program to stop, which then has the exit status 128 + ``signum``."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_status = 128 + signum

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name


@contextmanager
def raised_as_interrupted() -> Iterator[None]:
    """Raise the `Interrupted` that an error was caused by.

    Extension modules that are just imported raise an `ImportError` in its place.
    """
    try:
        yield
    except Exception as error:
        if interrupted := next((cause for cause in causes(error) if isinstance(cause, Interrupted)), None):
            raise interrupted from None
        raise


class Interrupts:
    """Handler of the `STOPPING_SIGNALS`."""

    def __init__(self) -> None:
        self.deferred = False  # whether the first signal is recorded in `requested` instead of raising `Interrupted`
        self.requested = 0  # number of the recorded signal, 0 for none
        self._held = False
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """Handle the signals from now on. Call it again after another handler was installed."""
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING_SIGNALS:
                before = signal.signal(signum, self)
                self._before.setdefault(signum, before)

    def hold(self) -> None:
        """Record signals until `release`, in whichever thread they come."""
        self._held = True

    def release(self) -> None:
        """Raise `Interrupted` if a signal came since `hold`."""
        self._held = False
        requested, self.requested = self.requested, 0
        if requested:
            raise Interrupted(requested)

    def ignore(self) -> None:
        """Ignore the signals from now on, in a process that ends anyway.

        The first process repeats them until the others have ended, and must not be interrupted in this itself.
        """
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING_SIGNALS:
                signal.signal(signum, signal.SIG_IGN)

    def restore(self) -> None:
        """Restore the previous handlers, for signals that are blocked, too."""
        if threading.current_thread() is threading.main_thread():
            self.ignore()  # drops one that came while it was blocked: the command has ended
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING_SIGNALS)
        for signum, before in self._before.items():
            signal.signal(signum, before if before is not None else signal.SIG_DFL)  # type: ignore[arg-type]  # as got
        self._before.clear()
        self.deferred = self._held = False
        self.requested = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Record the first signal if `deferred` is set, otherwise raise `Interrupted`."""
        if os.getpid() != self._process:  # a forked worker of a loader: its parent handles the signal
            return
        if self._held:
            self.requested = signum
            return
        if not self.deferred or self.requested:
            raise Interrupted(signum)
        self.requested = signum
        if is_first_here():  # print is not reentrant
            os.write(2, b"\nstopping once last.ckpt is saved (repeat the signal to stop at once)\n")

"""Ctrl-C and SIGTERM: a training run saves ``last.ckpt`` first, everything else stops at once.

The first signal during training is only noted; `Checkpoints` looks for it after each batch,
saves and stops. A second signal stops at once. Outside training the first one does. The exit status is the shell's
convention for both: 128 + signal number, 130 for Ctrl-C and 143 for SIGTERM.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from coordconv_apps.utils.distributed import is_first_here

if TYPE_CHECKING:
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asks this program to stop.

    Args:
        signum: The signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """What the program exits with."""
        return 128 + self.signum


class Interrupts:
    """The program's handler of Ctrl-C and SIGTERM.

    Attributes:
        deferred: Whether the first signal is noted in `requested` instead of raising `Interrupted`.
        requested: The number of a signal that was noted, 0 for none.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.requested = 0
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """Handles the signals from now on. Call it again when somebody else took them over."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                before = signal.signal(signum, self)
                self._before.setdefault(signum, before)

    def restore(self) -> None:
        """Gives the signals back to whoever handled them before."""
        for signum, before in self._before.items():
            signal.signal(signum, before if before is not None else signal.SIG_DFL)  # type: ignore[arg-type]  # as got
        self._before.clear()
        self.deferred = False
        self.requested = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal.

        Raises:
            Interrupted: Unless this is the first signal and `deferred` is set.
        """
        if os.getpid() != self._process:  # a worker of a loader, forked from this process: its parent decides
            return
        if not self.deferred or self.requested:
            raise Interrupted(signum)
        self.requested = signum
        if is_first_here():  # not print: the signal may have come in the middle of one
            os.write(2, b"\nstopping as soon as last.ckpt can be saved (once more to stop at once)\n")

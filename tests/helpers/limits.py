"""Limits that the operating system sets for this process and those that it starts."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


class TooSlow(BaseException):
    """Something takes longer than its limit."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TooSlow` after so many seconds in the main thread, even where it waits."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def file_size_limit(size: int) -> AbstractContextManager[None]:
    """Allow files of at most ``size`` bytes, as ``ulimit -f`` does."""
    return _limit(resource.RLIMIT_FSIZE, size)


def address_space_limit(size: int) -> AbstractContextManager[None]:
    """Allow an address space of at most ``size`` bytes, as ``ulimit -v`` does: larger allocations fail."""
    return _limit(resource.RLIMIT_AS, size)


@contextmanager
def _limit(kind: int, size: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)

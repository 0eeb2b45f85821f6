"""Memory that a process keeps: what the C library is asked for. What comes of it, `benchmarks/coordinates.py` shows."""

import ctypes
import platform

import pytest

from coordconv_apps.utils import memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_glibc_accepts_the_setting() -> None:
    assert memory.keep_freed_memory()


@pytest.mark.parametrize("refused", [None, -1, -3])
def test_both_thresholds_are_raised(monkeypatch: pytest.MonkeyPatch, refused: int | None) -> None:
    asked = {}

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked[parameter] = value
            return int(parameter != refused)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert memory.keep_freed_memory() == (refused is None)
    # By <malloc.h>: -3 is M_MMAP_THRESHOLD, which may be 32 MiB at most, and -1 M_TRIM_THRESHOLD, an int.
    assert asked[-3] == 32 * 2**20
    assert refused == -3 or asked[-1] == 2**31 - 1


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()

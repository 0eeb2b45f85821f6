"""Memory that a process keeps between batches."""

from __future__ import annotations

import ctypes

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 * 1024**2  # that every version of glibc takes
_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory of freed tensors of up to 32 MiB for the next ones, up to 2 GiB in all.

    By default it gives large blocks back to the system and asks for them again, page by page, in every batch. On a CPU
    this can take longer than the arithmetic: docs/results.md has the coordinate tasks with and without. Without glibc
    nothing happens.

    Returns:
        Whether it did so.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _KEPT))

"""Keep freed memory in the process between batches."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGEST_THRESHOLD = 32 * 1024**2  # accepted by every version of glibc
_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc keep the memory of freed tensors of up to 32 MiB for the next ones, up to 2 GiB in total.

    By default glibc returns large blocks to the system and requests them again, page by page, in every batch. On a CPU
    this can take longer than the arithmetic; docs/results/coordinates.md has the measured times. Without glibc nothing
    happens.

    Returns:
        Whether the settings were applied.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _KEPT))

"""The compiled runtime: its counters, and waiting for the device."""

from __future__ import annotations

import ctypes

from tests.simcuda.build import LIBRARY

_library = ctypes.CDLL(str(LIBRARY))


def synchronize() -> None:
    """Wait for the device."""
    _library.cudaDeviceSynchronize()


def races() -> int:
    """Return how often pinned memory was found changed before an asynchronous copy of it was over, up to now."""
    synchronize()
    return ctypes.c_long.in_dll(_library, "sim_cuda_races").value

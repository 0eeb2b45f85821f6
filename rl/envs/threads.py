"""Share the CPU cores between torch's threads and the emulators."""

from __future__ import annotations

import os

SPINS = 20_000
"""Iterations that an idle torch thread spins before it sleeps: half a millisecond or less on a current CPU."""


def share_cores() -> None:
    """Let torch's idle threads sleep sooner, in programs that import torch after this call.

    Between two operations, OpenMP threads spin for several milliseconds by default. That is as long as environments
    take for a step, on the cores that the environments need. With a smaller spin count, the threads stay awake from one
    operation to the next but sleep while environments step.

    The function sets ``GOMP_SPINCOUNT`` for GNU OpenMP, which torch's Linux packages use; elsewhere it has no effect.
    It does nothing if ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` is set already.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)

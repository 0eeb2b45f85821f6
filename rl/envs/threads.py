"""How torch's threads and the emulators share the cores of a machine."""

from __future__ import annotations

import os

SPINS = 20_000
"""How often an idle thread of torch looks for work before it sleeps: on a CPU of today, half a millisecond or less."""


def share_cores() -> None:
    """Lets torch's idle threads leave the cores to the emulators, in programs that load torch after this.

    Between two operations, OpenMP's threads look for work without a pause, by default for several milliseconds: as
    long as environments take for a step, on the cores that they need. With fewer looks, they still meet one operation
    after the other, and sleep while environments step. ``docs/results.md`` has trainings with and without.

    This sets a variable of GNU's OpenMP, which torch's packages for Linux come with; elsewhere it has no effect. It
    does nothing where the user has chosen (``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY``).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)

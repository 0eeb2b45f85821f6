"""Lock a run's folder, so that two commands do not train the same run at once."""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path

from coordconv_apps.runs.summary import read_summary
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.files import TEMPORARY_SUFFIX, remove_temporary_files, try_lock

_TEMPORARY = re.compile(rf"\..*{re.escape(TEMPORARY_SUFFIX)}")
"""Names of temporary files, also of checkpoints, which all processes write together."""


class RunLock:
    """A lock of one run's folder, which the operating system releases when this process ends in any way.

    Processes that this one forks, such as a loader's workers, do not keep the lock. File systems that cannot lock
    folders are used without a lock.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self, folder: Path) -> None:
        """Lock the folder, and remove the temporary files that a killed training has left in it.

        Raises:
            UserError: Another command trains the run in the folder.
        """
        if os.name == "nt":  # cannot open folders
            return
        self._descriptor = os.open(folder, os.O_RDONLY)
        if not try_lock(self._descriptor):
            self.release()
            holder = read_summary(folder).get("process", "another process")
            reason = f"{holder} is training this run; stop it, or wait until it ends"
            raise UserError(f"--ckpt_path: {folder} is in use: {reason}")
        for written in (folder, folder / "checkpoints", folder / "pictures"):
            remove_temporary_files(written, _TEMPORARY)

    def release(self) -> None:
        """Unlock the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_locks: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _release_all() -> None:
    for lock in _locks:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_all)  # closes the child's descriptors: the parent keeps its locks

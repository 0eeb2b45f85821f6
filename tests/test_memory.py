"""Memory that a process keeps: what the C library is asked for, and that a process then asks the system less often."""

import ctypes
import platform
import subprocess
import sys

import pytest

from coordconv_apps.running import memory

ON_GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import resource, sys, torch
from coordconv_apps.running.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
def batch():
    torch.zeros(4, 1024, 1024).add(1)  # two blocks of 16 MiB
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not ON_GLIBC, reason="another C library decides for itself")
def test_memory_is_not_given_back_between_batches() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    # As it comes, each of 20 x 2 blocks is asked for again, page by page. How many are kept depends on the system.
    assert 3 * faults("keep") < faults("as it comes")


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()

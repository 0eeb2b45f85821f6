"""How torch's threads and the emulators share the cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl.envs.threads import SPINS, share_cores

CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
ROOT = Path(__file__).parents[3]

LOOK = """
import os
import sys


class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("spins:", os.environ.get("GOMP_SPINCOUNT"))


sys.meta_path.insert(0, Look())
"""
"""Python runs this before anything else, if it is its sitecustomize module."""


@pytest.mark.parametrize(
    ("command", "spins"), [(["-m", "rl", "fit", "--help"], str(SPINS)), (["-c", "import rl"], "None")]
)
def test_the_command_shares_the_cores_before_torch_is_loaded(command: list[str], spins: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOOK)
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    environment["PYTHONPATH"] = str(tmp_path)
    arguments = [sys.executable, *command]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[0] == f"spins: {spins}"


@pytest.mark.parametrize("chosen", CHOICES)
def test_thread_counts_of_the_user_are_kept(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(chosen, "5")
    before = dict(os.environ)
    share_cores()
    assert dict(os.environ) == before

"""What `make` prints while it installs: little, unless the installation fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.source import ROOT

PIP = """#!/bin/sh
echo "$@" >> pip-calls.txt
for i in 1 2 3 4 5 6 7 8 9; do echo "Collecting package$i"; done
echo "Installing collected packages: everything"
case "$*" in *editable*) exit {status};; esac
"""


def prepare(folder: Path, status: int = 0) -> None:
    """Fill a folder with the Makefile, a pip that prints, and a Python that only says what it would run."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name, text in {"pip": PIP.format(status=status), "python": "#!/bin/sh\necho running: $@\n"}.items():
        file = folder / ".venv" / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--directory", str(folder), "PIP=.venv/bin/pip", "ARGS=", target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_installs_quietly_and_says_how_long_it_takes(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = make(tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
    assert "minutes on two CPU cores" in lines[1]
    assert "the environment is installed" in lines[1]
    assert (
        lines[-1] == "running: -m coordconv_apps.compare detection --config detection/configs/quickstart.yaml --seeds 0"
    )
    assert len(lines) <= 6
    assert "Collecting" not in done.stdout + done.stderr
    assert (tmp_path / ".venv-install.log").read_text().count("Collecting") == 18
    calls = (tmp_path / "pip-calls.txt").read_text()
    assert calls.splitlines()[-1] == "install --constraint constraints.txt --no-build-isolation --editable .[dev]"

    again = make(tmp_path, "demo").stdout
    assert "running: -m coordconv_apps.compare" in again
    assert "installed" not in again
    assert (tmp_path / "pip-calls.txt").read_text() == calls


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_failed_installation_shows_its_log(tmp_path: Path) -> None:
    prepare(tmp_path, status=1)
    done = make(tmp_path, "env")
    assert done.returncode == 2
    assert "Collecting package9" in done.stderr
    assert "error: the installation failed" in done.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()
    assert "running" not in done.stdout

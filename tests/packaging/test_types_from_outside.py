"""A user's type checker reads the types of the installed packages (``py.typed``, PEP 561)."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

from tests.packaging.source import PACKAGES

if TYPE_CHECKING:
    from pathlib import Path

USER = """\
from classification import Classifier
from coordconv_apps import CoordConv2d, to_coordconv
from coordconv_apps.coordinates import CoordinateRegression
from detection import FasterRCNN
from generative import GAN
from rl import PPO, CoordConvCnnPolicy

reveal_type(CoordConv2d(3, 8, 3, padding=1, coords="xyr"))  # note: "coordconv_apps.nn.layers.CoordConv2d"
reveal_type(CoordConvCnnPolicy)  # note: -> rl.policies.CoordConvCnnPolicy
CoordConv2d("3", 8, 3)  # error: expected "int"
to_coordconv(None, init="ones")  # error: expected "Literal['zero', 'default']"
Classifier(coords="yx")  # error: expected "Literal['none', 'xy', 'xyr']"
CoordinateRegression(width="1")  # error: expected "int"
FasterRCNN(colour=1)  # error: Unexpected keyword argument "colour"
GAN(coords=0)  # error: expected "Literal['none', 'xy', 'xyr']"
PPO(gamma="1")  # error: expected "float"
"""
"""What a user writes, and what the checker is to say in each line."""


def test_mypy_sees_the_types_of_the_installed_packages(wheel: Path, tmp_path: Path) -> None:
    """Libraries that these packages use are not followed: mypy would read all of torch."""
    site = tmp_path / "site"
    site.mkdir()
    for package in PACKAGES:
        (site / package).symlink_to(wheel / package)
    # An interpreter whose only packages are these: mypy asks it where they are installed.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    program = tmp_path / "user.py"
    program.write_text(USER)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-torch.*,lightning.*]\nignore_missing_imports = true\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--python-executable={python}", "--no-incremental", program.name],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": sysconfig.get_path("scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.findall(r"^user\.py:(\d+): (\w+): (.*)$", done.stdout, re.M)
    said = {int(line): (kind, text) for line, kind, text in reversed(told)}  # the first of each line
    expected = {
        number: line.rpartition("  # ")[2].partition(": ")[::2]
        for number, line in enumerate(USER.splitlines(), 1)
        if "  # " in line
    }
    assert said.keys() == expected.keys(), done.stdout + done.stderr
    for number, (kind, text) in expected.items():
        assert said[number][0] == kind
        assert text in said[number][1]

"""The wheel of this project, built once for all tests of packaging."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.source import PACKAGES, ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel was unpacked: that in the folder ``COORDCONV_DIST``, else one that is built."""
    folder = tmp_path_factory.mktemp("wheel")
    if dist := os.environ.get("COORDCONV_DIST"):
        unpack(Path(dist), folder)
        return folder
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"  # as `pip wheel --no-build-isolation`
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    unpack(source / "dist", folder)
    return folder


def unpack(dist: Path, folder: Path) -> None:
    """Unpack the one wheel of a folder."""
    (file,) = dist.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)

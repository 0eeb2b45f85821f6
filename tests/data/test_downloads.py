"""Downloaded files appear complete or not at all."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordconv_apps.data.downloads import DOWNLOAD_TIMEOUT, download_files
from tests.helpers.processes import ROOT


def test_files_are_moved_into_place_when_all_are_complete(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"

    def download(temporary: Path) -> Path:
        assert socket.getdefaulttimeout() == DOWNLOAD_TIMEOUT
        assert [path.name[0] for path in folder.iterdir()] == ["."]
        for name in ("a", "b", "not wanted"):
            (temporary / name).write_text(f"content of {name}")
        return temporary

    download_files(folder, ["a", "b"], download, "never shown")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "content of a", "b": "content of b"}
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("error", [OSError("no\nnetwork"), RuntimeError("no\nnetwork")])
def test_a_failed_download_leaves_nothing_and_is_one_line(error: Exception, tmp_path: Path) -> None:
    def download(temporary: Path) -> Path:
        (temporary / "a").write_text("half")
        raise error

    with pytest.raises(FileNotFoundError) as caught:
        download_files(tmp_path / "data", ["a"], download, "data.source=x: a must be in data")
    assert str(caught.value) == "data.source=x: a must be in data (downloading failed: no network)"
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from coordconv_apps.data.downloads import download_files
def download(temporary):
    (temporary / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
download_files(Path(sys.argv[1]), ["a"], download, "missing")
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "a").read_text() == "half"

    def download(temporary: Path) -> Path:
        assert not left.exists()
        (temporary / "a").write_text("whole")
        return temporary

    download_files(tmp_path, ["a"], download, "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

"""Atomic writes."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from coordconv_apps.utils.files import _swept, atomic_write, cut_file_name, remove_temporary_files, temporary_folder
from tests.helpers.processes import ROOT


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as file:
        file.write("after")
    assert path.read_text() == "after"
    plain = tmp_path / "plain.txt"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", ["a" * 255, "ß" * 127, "名" * 85])
def test_a_name_may_be_as_long_as_the_file_system_allows(name: str, tmp_path: Path) -> None:
    with atomic_write(tmp_path / name) as file:
        file.write("content")
    assert (tmp_path / name).read_text() == "content"
    assert len(cut_file_name(name, 100).encode()) in (99, 100)


def test_temporary_files_of_killed_processes_are_removed_by_the_next(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from coordconv_apps.utils.files import atomic_write
with atomic_write(Path(sys.argv[1], "metrics.csv")) as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    own = [tmp_path / name for name in (".notes.aside", ".best.ckpt.aside", "a.abcdefgh.aside", ".a.ABCDEFGH.aside")]
    for path in own:
        path.write_text("of the user")
    (tmp_path / ".link.abcdefgh.aside").symlink_to(own[0])
    with atomic_write(tmp_path / "other.txt") as file:
        file.write("whole")
        assert not left.exists()
        (aside,) = tmp_path.glob(".other.txt.*")
        _swept.clear()
        with atomic_write(tmp_path / "third.txt"):
            assert aside.exists(), "its process runs"
    assert all(path.read_text() == "of the user" for path in own)
    assert (tmp_path / ".link.abcdefgh.aside").is_symlink()
    assert (tmp_path / "other.txt").read_text() == "whole"


def test_a_folder_that_is_removed_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    create = tempfile.mkdtemp

    def removed_at_once(**arguments: object) -> str:
        names.append(create(**arguments))  # type: ignore[call-overload]  # as they are given
        if len(names) < 3:
            remove_temporary_files(tmp_path)  # by another process, which takes it for a leftover
        return names[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed_at_once)
    with temporary_folder(tmp_path) as folder:
        remove_temporary_files(tmp_path)
        assert str(folder) == names[2]
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []

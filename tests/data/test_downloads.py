"""Downloaded files appear complete or not at all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coordconv_apps.data.downloads import DOWNLOAD_TIMEOUT, download_files


def test_files_are_moved_into_place_when_all_are_complete(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"

    def download(temporary: Path) -> Path:
        assert socket.getdefaulttimeout() == DOWNLOAD_TIMEOUT
        assert not folder.exists()
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

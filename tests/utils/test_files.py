"""Atomic writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordconv_apps.utils.files import atomic_write, cut_file_name


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

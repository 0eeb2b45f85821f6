"""Checkpoints are written next to their final place; other file systems are left to Lightning."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordconv_apps.training.checkpoint_io import AtomicCheckpointIO


def test_a_checkpoint_is_written_in_a_new_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, path)
    assert AtomicCheckpointIO().load_checkpoint(path, weights_only=True) == {"epoch": 3}
    assert list(path.parent.iterdir()) == [path]


def test_remote_paths_and_storage_options_are_those_of_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer, path = AtomicCheckpointIO(), "memory://checkpoints/last.ckpt"
    writer.save_checkpoint({"epoch": 3}, path)
    assert writer.load_checkpoint(path, weights_only=True) == {"epoch": 3}
    writer.remove_checkpoint(path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="storage_options"):
        writer.save_checkpoint({}, tmp_path / "last.ckpt", {"key": "value"})

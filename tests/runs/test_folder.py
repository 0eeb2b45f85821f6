"""Run folders: their versions, and the checkpoints in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordconv_apps.runs.folder import find_checkpoint, new_run_dir, numbered_folders, training_of


def test_versions_are_numbers(tmp_path: Path) -> None:
    for name in ("version_9", "version_10", "version_x", "other"):
        (tmp_path / name).mkdir()
    assert [path.name for path in numbered_folders(tmp_path)] == ["version_10", "version_9"]
    assert new_run_dir(tmp_path).name == "version_11"
    assert new_run_dir(tmp_path).name == "version_12"


def test_the_newest_run_with_a_checkpoint_counts(tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"version_{number}" / "checkpoints").mkdir(parents=True)
    (tmp_path / "version_0" / "checkpoints" / "best.ckpt").touch()
    assert find_checkpoint("best", tmp_path).parent.parent.name == "version_0"
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt"):
        find_checkpoint("last", tmp_path)


def test_commands_are_numbered_apart_from_trainings(tmp_path: Path) -> None:
    training = new_run_dir(tmp_path)
    assert [new_run_dir(training, "test").name for _ in range(2)] == ["test_0", "test_1"]
    assert new_run_dir(training, "predict") == training / "predict_0"
    assert numbered_folders(training) == []
    assert numbered_folders(training, "test") == [training / "test_1", training / "test_0"]


def test_training_of_a_checkpoint_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = new_run_dir(tmp_path) / "checkpoints"
    checkpoints.mkdir()
    assert training_of(checkpoints / "best.ckpt") == tmp_path / "version_0"
    monkeypatch.chdir(checkpoints)
    assert training_of(Path("best.ckpt")) == tmp_path / "version_0"
    for elsewhere in (tmp_path / "best.ckpt", tmp_path / "version_0" / "best.ckpt", Path("/a.ckpt")):
        assert training_of(elsewhere) is None

"""Every path that a user gives: ``~`` is the home folder, and an empty path is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from classification.data import ClassificationData
from classification.models import build_classifier
from coordconv_apps.data.downloads import data_root
from coordconv_apps.runs.folder import find_checkpoint, name_dir_of
from coordconv_apps.utils.argument_checks import given_path
from detection.data import DetectionData
from generative.data import GenerativeData

PATHS: dict[str, Callable[[str], Path | None]] = {
    "--runs_dir": lambda path: name_dir_of(path, "toy", "a", ()).parents[1],
    "--ckpt_path": lambda path: find_checkpoint(path, Path("unused")),
    "data.root": data_root,
    "data.root of classification": lambda path: ClassificationData(root=path).root,
    "data.predict_images of classification": lambda path: (
        ClassificationData("digits", predict_images=path).predict_images
    ),
    "data.root of detection": lambda path: DetectionData(root=path).root,
    "data.glyphs": lambda path: DetectionData("folder", glyphs=path).glyphs,
    "data.glyph_labels": lambda path: DetectionData("idx", glyphs="a", glyph_labels=path).glyph_labels,
    "data.predict_images of detection": lambda path: DetectionData(predict_images=path).predict_images,
    "data.folder": lambda path: GenerativeData("folder", folder=path).folder,
}


@pytest.mark.parametrize("argument", PATHS)
def test_home_folder_is_expanded_in_paths(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").touch()
    assert PATHS[argument]("~/here") == tmp_path / "here"


@pytest.mark.parametrize("argument", PATHS)
@pytest.mark.parametrize("path", ["", " ", "~no_such_user/a"])
def test_invalid_paths_are_refused(argument: str, path: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument.partition(' ')[0]}={path}: must be a path"):
        PATHS[argument](path)


def test_home_folder_is_expanded_in_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"a file of tensors and plain values"):
        build_classifier("squeezenet1_1", num_classes=2, weights="~/weights.pth")
    with pytest.raises(ValueError, match=r"^weights=: must be a path, it is empty"):
        build_classifier("squeezenet1_1", num_classes=2, weights="")


def test_empty_environment_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDCONV_DATA", "")
    assert data_root() == Path("data")
    assert given_path(Path("a"), "--out") == Path("a")

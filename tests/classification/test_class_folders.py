"""Class folders: their layout, their pictures, splits, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from classification.class_folders import FolderSource, find_class_images, find_layout
from classification.splits import split_by_class
from coordconv_apps.data.image_decoding import read_image
from tests.classification.images import CLASSES, save_class, save_classes


def source(root: Path, **changes: object) -> FolderSource:
    arguments: dict[str, object] = {"val_fraction": 0.25, "split_seed": 0, "on_bad_image": "error"}
    return FolderSource(root, **(arguments | changes))  # type: ignore[arg-type]  # of several types


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    save_classes(tmp_path / "train", 4, 5, 6)
    save_classes(tmp_path / "val", 1, 2, 3)
    return tmp_path


# ------------------------------------------------------------------ layout


def test_split_folders_are_found(parts: Path) -> None:
    layout = find_layout(parts)
    assert layout.class_names == list(CLASSES)
    assert layout.folders == {"train": parts / "train", "val": parts / "val", "test": parts / "val"}
    assert not layout.needs_split
    save_classes(parts / "test", 1, 1, 1)
    assert find_layout(parts).folders["test"] == parts / "test"


def test_single_folder_needs_a_split(tmp_path: Path) -> None:
    layout = find_layout(save_classes(tmp_path, 2, 2))
    assert layout.needs_split
    assert layout.class_names == ["ant", "bee"]


def test_classes_may_be_named_like_splits(tmp_path: Path) -> None:
    save_classes(tmp_path, 2)
    save_classes(tmp_path / "train", 2)  # the vehicle
    assert find_layout(tmp_path).class_names == ["ant", "train"]


def test_classes_are_sorted_and_hidden_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("b", "B", "a2", "a10", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "a3.png").touch()
    assert find_layout(tmp_path).class_names == ["B", "a10", "a2", "b"]


def nowhere(root: Path) -> None:
    root.rmdir()


def a_file(root: Path) -> None:
    root.rmdir()
    root.touch()


def pictures_alone(root: Path) -> None:
    save_classes(root / "elsewhere", 1)
    (root / "elsewhere/ant/00.png").rename(root / "1.png")
    (root / "elsewhere/ant").rmdir()
    (root / "elsewhere").rmdir()


def one_class(root: Path) -> None:
    save_classes(root, 3)


def one_class_in_parts(root: Path) -> None:
    save_classes(root / "train", 3)
    save_classes(root / "val", 3)


def train_alone(root: Path) -> None:
    save_classes(root / "train", 3, 3)


def no_classes_to_validate(root: Path) -> None:
    save_classes(root / "train", 3, 3)
    (root / "val").mkdir()


def different(root: Path) -> None:
    save_classes(root / "train", 1, 1, 1)
    save_classes(root / "val", 1)
    save_class(root / "val", 1, 1)
    (root / "val/bee").rename(root / "val/dog")


def fewer_to_test(root: Path) -> None:
    for part, counts in (("train", (1, 1, 1)), ("val", (1, 1, 1)), ("test", (1, 1))):
        save_classes(root / part, *counts)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (nowhere, FileNotFoundError, "data.root='{}': no such folder"),
        (a_file, ValueError, "data.root='{}': must be a folder, not a file"),
        (pictures_alone, ValueError, "data.root='{}': must have a folder of images for each class, has none"),
        (one_class, ValueError, "data.root='{}': has only one class (ant), must have at least two"),
        (one_class_in_parts, ValueError, "data.root='{}/train': has only one class (ant), must have at least two"),
        (
            train_alone,
            ValueError,
            "data.root='{}': has only a folder train, must have both train and val with class folders in them, or"
            " class folders itself",
        ),
        (
            no_classes_to_validate,
            ValueError,
            "data.root='{}/val': must have a folder of images for each class, has none",
        ),
        (
            different,
            ValueError,
            "data.root='{}': train and val must have the same classes; only in train: bee, cat; only in val: dog",
        ),
        (fewer_to_test, ValueError, "data.root='{}': train and test must have the same classes; only in train: cat"),
    ],
)
def test_folders_that_are_not_as_they_should_be_are_refused_in_one_line(
    make: Callable[[Path], None], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    with pytest.raises(kind) as caught:
        find_layout(root)
    assert str(caught.value) == message.format(root)


# ------------------------------------------------------------------ pictures


def test_images_of_nested_folders_have_the_class_of_the_outermost(parts: Path) -> None:
    deep = parts / "train/ant/more/and/more"
    deep.mkdir(parents=True)
    (parts / "train/ant/00.png").rename(deep / "z.png")
    Image.new("RGB", (3, 3)).save(parts / "train/beside.png")
    found = find_class_images(parts / "train", CLASSES, "error")
    assert found.names[:4] == ["ant/01.png", "ant/02.png", "ant/03.png", "ant/more/and/more/z.png"]
    assert found.labels.tolist() == [0] * 4 + [1] * 5 + [2] * 6
    assert "beside.png" not in found.names


def test_an_image_has_its_class_and_file(parts: Path) -> None:
    pictures = source(parts).images("train")
    assert len(pictures) == 15
    for index in (0, 3, 4, 14):
        label, path = int(pictures.labels[index]), pictures.path(index)
        assert torch.equal(pictures.read(index), read_image(path))
        assert pictures.read(index)[0].unique().tolist() == [label]
        assert path.parent.name == CLASSES[label]


def test_validation_images_are_tested_on_without_a_test_folder(parts: Path) -> None:
    assert source(parts).images("test").labels.tolist() == [0, 1, 1, 2, 2, 2]
    save_classes(parts / "test", 2, 1, 1)
    assert source(parts).images("test").labels.tolist() == [0, 0, 1, 2]


def test_empty_classes_are_named(parts: Path) -> None:
    for name in ("ant", "cat"):
        for path in (parts / "val" / name).iterdir():
            path.unlink()
    with pytest.raises(ValueError, match="no readable images in the class folder") as caught:
        source(parts).images("val")
    assert str(caught.value).startswith(f"data.root='{parts / 'val'}': no readable images")
    assert str(caught.value).endswith("in the class folder ant, cat")


# ------------------------------------------------------------------ those that cannot be read


def test_a_class_without_readable_images_is_refused(parts: Path) -> None:
    (parts / "val/ant/00.png").write_text("")
    with pytest.raises(
        ValueError,
        match=r"no readable images in the class folder ant; data.*: 1 of 6 .* cannot be read: ant/00\.png; left out$",
    ):
        source(parts, on_bad_image="skip").images("val")


# ------------------------------------------------------------------ splits


@pytest.mark.parametrize(("fraction", "held_out"), [(0.1, [1, 2, 4]), (0.25, [1, 5, 10]), (0.9, [2, 18, 36])])
def test_every_class_is_split_alike(fraction: float, held_out: list[int]) -> None:
    labels = torch.tensor([0] * 3 + [1] * 20 + [2] * 40)[torch.randperm(63, generator=torch.Generator().manual_seed(5))]
    left, out = split_by_class(labels, fraction, 0, CLASSES)
    assert torch.bincount(labels[out]).tolist() == held_out
    assert sorted(left.tolist() + out.tolist()) == list(range(63))
    assert left.tolist() == sorted(left.tolist())
    assert out.tolist() == sorted(out.tolist())


def test_the_seed_chooses_what_is_held_out() -> None:
    labels = torch.tensor([0, 1]).repeat(30)
    held_out = [split_by_class(labels, 0.5, seed, "ab")[1].tolist() for seed in (0, 0, 1, 2)]
    assert held_out[0] == held_out[1]
    assert len(set(map(str, held_out))) == 3
    in_class = [[number // 2 for number in held_out[0] if number % 2 == label] for label in (0, 1)]
    assert in_class[0] != in_class[1], "not the same places in every class"


def test_a_class_of_a_single_image_cannot_be_split(tmp_path: Path) -> None:
    save_classes(tmp_path, 3, 1)
    with pytest.raises(ValueError, match="must have at least 2") as caught:
        source(tmp_path).images("train")
    told = "class 'bee': has 1 image, must have at least 2 to train and to validate"
    assert str(caught.value) == f"data.root={str(tmp_path)!r}: {told}"


def test_val_fraction_must_be_positive_without_split_folders(tmp_path: Path, parts: Path) -> None:
    save_classes(tmp_path / "whole", 3, 3)
    with pytest.raises(ValueError, match="must be above 0") as caught:
        source(tmp_path / "whole", val_fraction=0)
    where = f"data.root={str(tmp_path / 'whole')!r}"
    assert str(caught.value) == f"data.val_fraction=0: must be above 0, as {where} has no folders train and val"
    assert len(source(parts, val_fraction=0).images("train")) == 15

"""Digits, CIFAR from tiny files in torchvision's format, and ImageNet's names. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100

from classification.bundled import HeldSet, HeldSource, fetch_cifar, imagenet_names, load_held
from classification.folder import PARTS

PER_CLASS = 4  # images of each class in a file of CIFAR


# ------------------------------------------------------------------ digits


def held(source: HeldSource, root: Path = Path("nowhere"), val_fraction: float = 0.1, split_seed: int = 0) -> HeldSet:
    return load_held(source, root, val_fraction, split_seed)


def test_digits_are_scikit_learns() -> None:
    parts, class_names = held("digits")
    assert class_names == list("0123456789")
    digits = load_digits()
    gray = np.floor(digits.images * 15.9375 + 0.5).astype(np.uint8)
    expected = sorted((int(label), image.tobytes()) for label, image in zip(digits.target, gray, strict=True))
    found = []
    for images, labels in parts.values():
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 8, 8)
        assert (images == images[:, :1]).all()
        found += [(int(label), image.numpy().tobytes()) for label, image in zip(labels, images[:, 0], strict=True)]
    assert sorted(found) == expected
    assert {int(part.images.min()) for part in parts.values()} == {0}
    assert {int(part.images.max()) for part in parts.values()} == {255}


def test_every_digit_is_split_alike() -> None:
    counts = {part: torch.bincount(images.labels) for part, images in held("digits").parts.items()}
    total = torch.from_numpy(np.bincount(load_digits().target))
    assert ((counts["test"] - 0.2 * total).abs() <= 0.5).all()
    assert ((counts["val"] - 0.1 * 0.8 * total).abs() <= 0.6).all()


def test_the_split_seed_chooses_the_parts_of_digits() -> None:
    one, same, other = (held("digits", split_seed=seed).parts for seed in (0, 0, 1))
    for part in PARTS:
        assert torch.equal(one[part].images, same[part].images)
        assert one[part].images.shape == other[part].images.shape
        assert not torch.equal(one[part].images, other[part].images)


def test_without_a_part_to_validate_on_test_images_are_validated_on() -> None:
    parts = held("digits", val_fraction=0).parts
    assert torch.equal(parts["val"].images, parts["test"].images)
    assert len(parts["train"].labels) + len(parts["test"].labels) == 1797


# ------------------------------------------------------------------ CIFAR


def write_cifar(root: Path, kind: type[CIFAR10], monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Files of a few random images in torchvision's format, and their checksums where it looks for them."""
    rng = np.random.default_rng(0)
    classes = 100 if kind is CIFAR100 else 10
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    written: dict[str, np.ndarray] = {}
    sums: dict[str, str] = {}

    def write(name: str, content: object) -> None:
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    for name, _ in kind.train_list + kind.test_list:
        written[name] = rng.integers(0, 256, (classes * PER_CLASS, 3, 32, 32), np.uint8)
        labels = [number % classes for number in range(classes * PER_CLASS)]
        key = "fine_labels" if kind is CIFAR100 else "labels"
        write(name, {"data": written[name].reshape(len(labels), -1), key: labels})
    write(kind.meta["filename"], {kind.meta["key"]: [f"class {number}" for number in range(classes)]})
    for where in ("train_list", "test_list"):
        monkeypatch.setattr(kind, where, [[name, sums[name]] for name, _ in getattr(kind, where)])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[kind.meta["filename"]]})
    return written


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setattr("torchvision.datasets.utils.urllib.request.urlopen", no_network)


@pytest.mark.parametrize(("source", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_is_read_from_torchvisions_files(
    source: HeldSource, kind: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_cifar(tmp_path, kind, monkeypatch)
    fetch_cifar(source, tmp_path)
    parts, class_names = held(source, tmp_path, val_fraction=0.25)
    assert class_names == [f"class {number}" for number in range(len(class_names))]
    (test_name, _), *_ = kind.test_list
    assert np.array_equal(parts["test"].images.numpy(), written.pop(test_name))
    assert parts["test"].labels.tolist() == list(range(len(class_names))) * PER_CLASS
    train = np.concatenate(list(written.values()))
    both = torch.cat([parts["train"].images, parts["val"].images]).numpy()
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in train)
    counts = {part: set(torch.bincount(parts[part].labels).tolist()) for part in PARTS}
    files = len(kind.train_list)
    assert counts == {"train": {3 * files}, "val": {files}, "test": {PER_CLASS}}


def test_missing_files_of_cifar_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="downloading failed") as caught:
        fetch_cifar("cifar100", tmp_path / "data")
    assert str(caught.value) == (
        f"data.source=cifar100: train, test, meta must be, whole, in {tmp_path}/data/cifar-100-python; put them there,"
        f" or cifar-100-python.tar.gz into {tmp_path}/data, or name the folder that holds cifar-100-python with"
        " data.root or the variable COORDCONV_DATA (downloading failed: no network)"
    )
    assert not (tmp_path / "data").exists()
    with pytest.raises(FileNotFoundError, match=r"^data\.source=cifar10: data_batch_1, .* COORDCONV_DATA$"):
        held("cifar10", tmp_path)


def test_damaged_files_of_cifar_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, CIFAR10, monkeypatch)
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(b"cut off")
    with pytest.raises(FileNotFoundError, match="must be, whole, in"):
        fetch_cifar("cifar10", tmp_path)
    with pytest.raises(FileNotFoundError, match="must be, whole, in"):
        held("cifar10", tmp_path)


def test_cifar_is_unpacked_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path / "elsewhere", CIFAR10, monkeypatch)
    archive = tmp_path / "data" / CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "elsewhere" / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    fetch_cifar("cifar10", tmp_path / "data")
    assert np.array_equal(held("cifar10", tmp_path / "data").parts["test"].images.numpy(), written["test_batch"])
    names = sorted(path.name for path in (tmp_path / "data" / CIFAR10.base_folder).iterdir())
    assert names == ["batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


# ------------------------------------------------------------------ ImageNet


def test_imagenets_classes_have_names(tmp_path: Path) -> None:
    names = {"n1": ("tench", "Tinca tinca"), "n2": ("crane",), "n3": ("crane", "a bird"), "n4": ("unused",)}
    torch.save((names, ["n1", "n4"]), tmp_path / "meta.bin")
    assert imagenet_names(tmp_path, ["n1", "n2", "n3"]) == ["tench", "crane (n2)", "crane (n3)"]
    with pytest.raises(ValueError, match="no classes of ImageNet") as caught:
        imagenet_names(tmp_path, ["n1", "cat", "dog"])
    assert str(caught.value) == f"data.root={str(tmp_path)!r}: no classes of ImageNet: cat, dog"


def test_without_imagenets_names_it_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no meta") as caught:
        imagenet_names(tmp_path, ["n1"])
    assert str(caught.value) == (
        f"data.root={str(tmp_path)!r}: has no meta.bin, which torchvision.datasets.ImageNet makes of"
        " ILSVRC2012_devkit_t12.tar.gz; data.source=folder does without, and names classes by their folders"
    )


@pytest.mark.parametrize("content", [b"no names", pickle.dumps({"n1": ("tench",)})])
def test_a_damaged_file_of_imagenets_names_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "meta.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"^data\.root='.*': meta\.bin is not torchvision's \(.+\)$") as caught:
        imagenet_names(tmp_path, ["n1"])
    assert "\n" not in str(caught.value)

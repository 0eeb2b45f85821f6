"""CIFAR from tiny files in torchvision's format. Nothing is ever downloaded."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from classification.cifar import CifarName, download_cifar, load_cifar
from classification.in_memory import InMemorySource
from coordconv_apps.data.splits import SPLITS

PER_CLASS = 4  # images of each class in a file of CIFAR


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
    source: CifarName, kind: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_cifar(tmp_path, kind, monkeypatch)
    download_cifar(source, tmp_path)
    loaded = InMemorySource(source, tmp_path, 0.25, 0)
    splits, class_names = {split: loaded.images(split) for split in SPLITS}, loaded.class_names
    assert class_names == [f"class {number}" for number in range(len(class_names))]
    (test_name, _), *_ = kind.test_list
    assert np.array_equal(splits["test"].images.numpy(), written.pop(test_name))
    assert splits["test"].labels.tolist() == list(range(len(class_names))) * PER_CLASS
    train = np.concatenate(list(written.values()))
    both = torch.cat([splits["train"].images, splits["val"].images]).numpy()
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in train)
    counts = {split: set(torch.bincount(splits[split].labels).tolist()) for split in SPLITS}
    files = len(kind.train_list)
    assert counts == {"train": {3 * files}, "val": {files}, "test": {PER_CLASS}}


def test_missing_files_of_cifar_are_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="downloading failed") as caught:
        download_cifar("cifar100", tmp_path / "data")
    assert str(caught.value) == (
        f"data.source=cifar100: train, test, meta must be complete in {tmp_path}/data/cifar-100-python; put them there,"
        f" or cifar-100-python.tar.gz into {tmp_path}/data, or name the folder that holds cifar-100-python with"
        " data.root or the variable COORDCONV_DATA (downloading failed: no network)"
    )
    assert not (tmp_path / "data").exists()
    with pytest.raises(FileNotFoundError, match=r"^data\.source=cifar10: data_batch_1, .* COORDCONV_DATA$"):
        load_cifar("cifar10", tmp_path, train=True)


def test_damaged_files_of_cifar_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, CIFAR10, monkeypatch)
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(b"cut off")
    with pytest.raises(FileNotFoundError, match="must be complete in"):
        download_cifar("cifar10", tmp_path)
    with pytest.raises(FileNotFoundError, match="must be complete in"):
        load_cifar("cifar10", tmp_path, train=True)


def test_cifar_is_unpacked_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path / "elsewhere", CIFAR10, monkeypatch)
    archive = tmp_path / "data" / CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "elsewhere" / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    download_cifar("cifar10", tmp_path / "data")
    assert np.array_equal(load_cifar("cifar10", tmp_path / "data", train=False)[0].numpy(), written["test_batch"])
    names = sorted(path.name for path in (tmp_path / "data" / CIFAR10.base_folder).iterdir())
    assert names == ["batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]

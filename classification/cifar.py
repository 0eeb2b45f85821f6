"""CIFAR-10 and CIFAR-100: find, unpack or download their files, and load them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from coordconv_apps.data.downloads import download_files

CifarName = Literal["cifar10", "cifar100"]

_CIFAR: dict[CifarName, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def load_cifar(name: CifarName, root: Path, *, train: bool) -> tuple[Tensor, Tensor, list[str]]:
    """Load the training or the test images from the data root, see `download_cifar`.

    Returns:
        Images uint8 ``(N, 3, 32, 32)``, labels int64 ``(N,)``, and the class names.

    Raises:
        FileNotFoundError: Files are missing or damaged.
    """
    try:
        loaded = _CIFAR[name](str(root), train=train)
    except RuntimeError as error:
        raise FileNotFoundError(_missing(name, root)) from error
    images = torch.from_numpy(loaded.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(loaded.targets), list(loaded.classes)


def download_cifar(name: CifarName, root: Path) -> None:
    """Make sure that the files are in ``root``: unpack the archive that is there, or download it.

    The files are in ``cifar-10-batches-py`` or ``cifar-100-python``. Several processes may call this at once.

    Raises:
        FileNotFoundError: The files are missing and cannot be downloaded.
    """
    kind = _CIFAR[name]
    checksums = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    if all(check_integrity(str(root / kind.base_folder / file), md5) for file, md5 in checksums):
        return

    def download(temporary: Path) -> Path:
        if (root / kind.filename).is_file():
            shutil.copyfile(root / kind.filename, temporary / kind.filename)
        kind(str(temporary), download=True)
        return Path(temporary, kind.base_folder)

    download_files(root / kind.base_folder, [file for file, _ in checksums], download, _missing(name, root))


def _missing(name: CifarName, root: Path) -> str:
    kind = _CIFAR[name]
    files = [file for file, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]
    return (
        f"data.source={name}: {', '.join(files)} must be complete in {(root / kind.base_folder).resolve()};"
        f" put them there, or {kind.filename} into {root.resolve()}, or name the folder that holds {kind.base_folder}"
        " with data.root or the variable COORDCONV_DATA"
    )

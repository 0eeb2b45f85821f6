"""Sets that libraries bring or know: scikit-learn's digits, torchvision's CIFAR-10, CIFAR-100 and ImageNet."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.imagenet import META_FILE, load_meta_file
from torchvision.datasets.utils import check_integrity

from classification.folder import Split, split_by_class
from coordconv_apps.data.downloads import download_files
from coordconv_apps.data.image_files import abbreviate_names
from coordconv_apps.utils.seeds import mix_seeds

HeldSource = Literal["digits", "cifar10", "cifar100"]
"""Sets that are small enough to be held in memory."""

DIGITS_TEST_FRACTION = 0.2
"""Share of each digit that is tested on; the set has no test images of its own."""

NUM_CLASSES: dict[HeldSource, int] = {"digits": 10, "cifar10": 10, "cifar100": 100}

_CIFAR: dict[HeldSource, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}


class HeldImages(NamedTuple):
    """Images in memory, all of one size.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, red, green and blue.
        labels: int64 ``(N,)``: their classes, from 0.
    """

    images: Tensor
    labels: Tensor

    def at(self, numbers: Tensor) -> HeldImages:
        """Some of them: those of ``numbers``, int64."""
        return HeldImages(self.images[numbers], self.labels[numbers])


class HeldSet(NamedTuple):
    """A set in memory.

    Attributes:
        parts: Its images to train, to validate and to test on.
        class_names: The classes by number.
    """

    parts: dict[Split, HeldImages]
    class_names: list[str]


def load_held(source: HeldSource, root: Path, val_fraction: float, split_seed: int) -> HeldSet:
    """Loads a set that is held in memory.

    A fifth of each of scikit-learn's digits (8 x 8, three equal channels) is to test on. CIFAR has test images of its
    own. Of what is to train on, a part is held out to validate on.

    Args:
        source: Which set.
        root: Where the files of CIFAR are, see `fetch_cifar`.
        val_fraction: Share of each class to validate on; with 0, the test images are validated on too.
        split_seed: Fixes which images are held out.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: Too few images of a class.
    """
    if source == "digits":
        everything, class_names = _load_digits()
        left, chosen = split_by_class(everything.labels, DIGITS_TEST_FRACTION, mix_seeds(split_seed, 1), class_names)
        train, test = everything.at(left), everything.at(chosen)
    else:
        train, class_names = _load_cifar(source, root, train=True)
        test, _ = _load_cifar(source, root, train=False)
    if not val_fraction:
        return HeldSet({"train": train, "val": test, "test": test}, class_names)
    left, chosen = split_by_class(train.labels, val_fraction, split_seed, class_names)
    return HeldSet({"train": train.at(left), "val": train.at(chosen), "test": test}, class_names)


def _load_digits() -> tuple[HeldImages, list[str]]:
    from sklearn.datasets import load_digits  # here: it takes a second, which no other source needs

    digits = load_digits()
    gray = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))  # 0 to 16
    images = gray[:, None].repeat(1, 3, 1, 1)
    return HeldImages(images, torch.from_numpy(digits.target.astype(np.int64))), [str(n) for n in digits.target_names]


def _load_cifar(source: HeldSource, root: Path, train: bool) -> tuple[HeldImages, list[str]]:
    try:
        made = _CIFAR[source](str(root), train=train)
    except RuntimeError as error:  # files are missing or damaged
        raise FileNotFoundError(_wanted(source, root)) from error
    images = torch.from_numpy(made.data).permute(0, 3, 1, 2).contiguous()
    return HeldImages(images, torch.tensor(made.targets)), list(made.classes)


def fetch_cifar(source: HeldSource, root: Path) -> None:
    """Finds CIFAR's files, takes them from their archive, or has torchvision download them.

    They are renamed into place when they are complete: several processes may call this at once.

    Args:
        source: "cifar10" or "cifar100".
        root: The data root: the files are in ``root/cifar-10-batches-py`` or ``root/cifar-100-python``, the archive in
            ``root``.

    Raises:
        FileNotFoundError: They are missing and cannot be downloaded.
    """
    if _is_complete(source, root):
        return
    kind = _CIFAR[source]

    def download(temporary: Path) -> Path:
        if (root / kind.filename).is_file():
            shutil.copyfile(root / kind.filename, temporary / kind.filename)
        kind(str(temporary), download=True)
        return Path(temporary, kind.base_folder)

    download_files(root / kind.base_folder, _files(source), download, _wanted(source, root))


def _files(source: HeldSource) -> list[str]:
    kind = _CIFAR[source]
    return [name for name, _ in kind.train_list + kind.test_list] + [kind.meta["filename"]]


def _is_complete(source: HeldSource, root: Path) -> bool:
    kind = _CIFAR[source]
    checked = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
    return all(check_integrity(str(root / kind.base_folder / name), md5) for name, md5 in checked)


def _wanted(source: HeldSource, root: Path) -> str:
    folder, archive = _CIFAR[source].base_folder, _CIFAR[source].filename
    return (
        f"data.source={source}: {', '.join(_files(source))} must be, whole, in {(root / folder).resolve()};"
        f" put them there, or {archive} into {root.resolve()}, or name the folder that holds {folder} with data.root"
        " or the variable COORDCONV_DATA"
    )


def imagenet_names(root: Path, wordnet_ids: Sequence[str]) -> list[str]:
    """What ImageNet's classes are called, by the file that torchvision makes of its development kit.

    Args:
        root: Holds ``meta.bin``.
        wordnet_ids: The names of the class folders, such as ``n01440764``.

    Returns:
        The first name of each, such as ``tench``; with the identifier if other classes have the same.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or does not know a folder.
    """
    place = root / META_FILE
    if not place.is_file():
        raise FileNotFoundError(
            f"data.root={str(root)!r}: has no {META_FILE}, which torchvision.datasets.ImageNet makes of"
            " ILSVRC2012_devkit_t12.tar.gz; data.source=folder does without, and names classes by their folders"
        )
    try:
        names: dict[str, tuple[str, ...]] = load_meta_file(str(root))[0]
        first = {key: value[0] for key, value in names.items()}
    except Exception as error:  # whatever loading a damaged file raises
        why = (" ".join(str(error).split()) or type(error).__name__)[:80]
        raise ValueError(f"data.root={str(root)!r}: {META_FILE} is not torchvision's ({why})") from error
    unknown = [key for key in wordnet_ids if key not in first]
    if unknown:
        raise ValueError(f"data.root={str(root)!r}: no classes of ImageNet: {abbreviate_names(unknown)}")
    counts = Counter(first.values())
    return [first[key] if counts[first[key]] == 1 else f"{first[key]} ({key})" for key in wordnet_ids]

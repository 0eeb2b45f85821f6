"""Data sets small enough for memory, as splits: scikit-learn's digits, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from classification.cifar import load_cifar
from classification.digits import load_digits
from classification.splits import Split, split_by_class
from coordconv_apps.utils.seeds import mix_seeds

InMemoryName = Literal["digits", "cifar10", "cifar100"]

NUM_CLASSES: dict[InMemoryName, int] = {"digits": 10, "cifar10": 10, "cifar100": 100}

DIGITS_TEST_FRACTION = 0.2
"""Fraction of each digit in the test split; scikit-learn's digits have no test images of their own."""


class InMemoryImages(NamedTuple):
    """Labelled images in memory, all of one size.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, RGB.
        labels: int64 ``(N,)``: their classes, from 0.
    """

    images: Tensor
    labels: Tensor

    def select(self, indices: Tensor) -> InMemoryImages:
        """Return the images at int64 ``indices``."""
        return InMemoryImages(self.images[indices], self.labels[indices])


class InMemorySource:
    """A data set in memory, loaded when a split or the class names are asked for.

    Args:
        name: Which data set.
        root: The folder with the files of CIFAR, see `classification.cifar.download_cifar`.
        val_fraction: Fraction of each class of the training images for validation; 0 validates on the test images.
        split_seed: Determines which images are held out.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: A class has too few images.
    """

    messages: tuple[str, ...] = ()
    left_out = 0

    def __init__(self, name: InMemoryName, root: Path, val_fraction: float, split_seed: int) -> None:
        self.name: InMemoryName = name
        self.root = root
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    @property
    def unreadable(self) -> set[str]:
        """No files: images in memory can always be read."""
        return set()

    @property
    def num_classes(self) -> int:
        """The number of classes; nothing is loaded to know it."""
        return NUM_CLASSES[self.name]

    @property
    def class_names(self) -> list[str]:
        """The classes by label."""
        return self._loaded[1]

    def images(self, split: Split) -> InMemoryImages:
        """Return the images of a split."""
        return self._loaded[0][split]

    @cached_property
    def _loaded(self) -> tuple[dict[Split, InMemoryImages], list[str]]:
        if self.name == "digits":
            images, labels, class_names = load_digits()
            everything = InMemoryImages(images, labels)
            seed = mix_seeds(self.split_seed, 1)
            train, test = _split(everything, DIGITS_TEST_FRACTION, seed, class_names)
        else:
            images, labels, class_names = load_cifar(self.name, self.root, train=True)
            train = InMemoryImages(images, labels)
            test = InMemoryImages(*load_cifar(self.name, self.root, train=False)[:2])
        if not self.val_fraction:
            return {"train": train, "val": test, "test": test}, class_names
        train, val = _split(train, self.val_fraction, self.split_seed, class_names)
        return {"train": train, "val": val, "test": test}, class_names


def _split(
    everything: InMemoryImages, fraction: float, seed: int, class_names: list[str]
) -> tuple[InMemoryImages, InMemoryImages]:
    kept, held_out = split_by_class(everything.labels, fraction, seed, class_names)
    return everything.select(kept), everything.select(held_out)

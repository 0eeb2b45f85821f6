"""Data sets small enough for memory, as splits: scikit-learn's digits, CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from classification.cifar import load_cifar
from classification.splits import split_by_class
from coordconv_apps.data.splits import Split
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

    def split(self, fraction: float, seed: int, class_names: list[str]) -> tuple[InMemoryImages, InMemoryImages]:
        """Hold out a fraction of each class, see `split_by_class`."""
        kept, held_out = split_by_class(self.labels, fraction, seed, class_names)
        return (
            InMemoryImages(self.images[kept], self.labels[kept]),
            InMemoryImages(self.images[held_out], self.labels[held_out]),
        )


def load_digits() -> tuple[Tensor, Tensor, list[str]]:
    """Load scikit-learn's digits: images uint8 ``(1797, 3, 8, 8)``, labels int64 ``(1797,)``, and the class names."""
    from sklearn import datasets  # here: importing it takes a second, which no other source needs

    digits = datasets.load_digits()
    gray = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))  # from 0 to 16
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return gray[:, None].repeat(1, 3, 1, 1), labels, [str(name) for name in digits.target_names]


@dataclass
class InMemorySource:
    """A data set in memory, loaded when a split or the class names are first used.

    The attributes are arguments of `classification.data.ClassificationData`.
    """

    name: InMemoryName
    root: Path
    val_fraction: float
    split_seed: int

    def skipped_images(self) -> set[str]:
        """Return none, since images in memory can always be read."""
        return set()

    @property
    def num_classes(self) -> int:
        """The number of classes, known without loading images."""
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
            seed = mix_seeds(self.split_seed, 1)
            train, test = InMemoryImages(images, labels).split(DIGITS_TEST_FRACTION, seed, class_names)
        else:
            images, labels, class_names = load_cifar(self.name, self.root, train=True)
            train = InMemoryImages(images, labels)
            test = InMemoryImages(*load_cifar(self.name, self.root, train=False)[:2])
        val = test
        if self.val_fraction:
            train, val = train.split(self.val_fraction, self.split_seed, class_names)
        return {"train": train, "val": val, "test": test}, class_names

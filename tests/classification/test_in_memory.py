"""Data sets in memory: their splits, and scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from classification.in_memory import InMemoryImages, InMemorySource
from coordconv_apps.data.splits import SPLITS, Split


def splits_of(val_fraction: float = 0.1, split_seed: int = 0) -> dict[Split, InMemoryImages]:
    source = InMemorySource("digits", Path("nowhere"), val_fraction, split_seed)
    return {split: source.images(split) for split in SPLITS}


def test_digits_are_scikit_learns() -> None:
    assert InMemorySource("digits", Path("nowhere"), 0.1, 0).class_names == list("0123456789")
    splits = splits_of()
    digits = load_digits()
    gray = np.floor(digits.images * 15.9375 + 0.5).astype(np.uint8)
    expected = sorted((int(label), image.tobytes()) for label, image in zip(digits.target, gray, strict=True))
    found = []
    for images, labels in splits.values():
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 8, 8)
        assert (images == images[:, :1]).all()
        found += [(int(label), image.numpy().tobytes()) for label, image in zip(labels, images[:, 0], strict=True)]
    assert sorted(found) == expected
    assert {int(split.images.min()) for split in splits.values()} == {0}
    assert {int(split.images.max()) for split in splits.values()} == {255}


def test_the_split_seed_determines_the_splits() -> None:
    one, same, other = (splits_of(split_seed=seed) for seed in (0, 0, 1))
    for split in SPLITS:
        assert torch.equal(one[split].images, same[split].images)
        assert one[split].images.shape == other[split].images.shape
        assert not torch.equal(one[split].images, other[split].images)


def test_without_validation_images_the_test_images_are_validated_on() -> None:
    splits = splits_of(val_fraction=0)
    assert torch.equal(splits["val"].images, splits["test"].images)
    assert len(splits["train"].labels) + len(splits["test"].labels) == 1797

"""Names of ImageNet's classes: of all of them, of some, and without the list of identifiers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet50_Weights

from classification.imagenet import imagenet_class_names

CATEGORIES = ResNet50_Weights.DEFAULT.meta["categories"]
IDS = [f"n{10_000_000 + 7 * number}" for number in range(1000)]


def test_all_classes_are_named_in_the_order_of_their_identifiers(tmp_path: Path) -> None:
    names = imagenet_class_names(tmp_path, IDS)
    assert names == CATEGORIES
    assert (names[0], names[134], names[517], names[999]) == ("tench", "crane bird", "crane", "toilet tissue")
    assert len(set(names)) == 1000
    with pytest.raises(ValueError, match=r"^data\.root='.*': not ImageNet's classes: cat$"):
        imagenet_class_names(tmp_path, ["cat", *IDS[1:]])


def test_some_classes_are_named_with_the_list_of_identifiers(tmp_path: Path) -> None:
    torch.save(({name: ("unused",) for name in reversed(IDS)}, IDS[:3]), tmp_path / "meta.bin")
    assert imagenet_class_names(tmp_path, [IDS[0], IDS[134], IDS[999]]) == ["tench", "crane bird", "toilet tissue"]
    with pytest.raises(ValueError, match="not ImageNet's classes") as caught:
        imagenet_class_names(tmp_path, [IDS[0], "cat", "dog"])
    assert str(caught.value) == f"data.root={str(tmp_path)!r}: not ImageNet's classes: cat, dog"


def test_some_classes_without_the_list_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"^data\.root='.*': its class folders are not .* meta\.bin is missing; use data\.source=folder",
    ):
        imagenet_class_names(tmp_path, IDS[:3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no names", r"meta\.bin is not torchvision's \(.+\)$"),
        (pickle.dumps({"n1": ("tench",)}), r"meta\.bin is not torchvision's \(.+\)$"),
        (None, r"meta\.bin has 3 classes, must have 1,000$"),
    ],
)
def test_a_damaged_list_is_named_in_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is None:
        torch.save((dict.fromkeys(IDS[:3], ()), []), tmp_path / "meta.bin")
    else:
        (tmp_path / "meta.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^data\.root='.*': {message}") as caught:
        imagenet_class_names(tmp_path, IDS[:2])
    assert "\n" not in str(caught.value)

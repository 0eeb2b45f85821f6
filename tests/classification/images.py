"""Small generated pictures in class folders."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from classification.datasets import LabelledBatch

CLASSES = ("ant", "bee", "cat")


def save_class(folder: Path, label: int, count: int, size: tuple[int, int] = (12, 10)) -> None:
    """Pictures of a class: the label in red, their number in green, and blue that grows from left to right."""
    (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = Image.new("RGB", size, (label, number, 0))
        picture.putdata([(label, number, 20 * (i % size[0])) for i in range(size[0] * size[1])])
        picture.save(folder / CLASSES[label] / f"{number:02}.png")


def save_classes(folder: Path, *counts: int) -> Path:
    """A folder with so many pictures of each class."""
    for label, count in enumerate(counts):
        save_class(folder, label, count)
    return folder


def colours(batch: LabelledBatch) -> list[tuple[int, int]]:
    """The class and the number that each image shows."""
    assert batch.images.dtype == torch.uint8
    middle = batch.images[:, :, batch.images.shape[2] // 2, batch.images.shape[3] // 2]
    return [(red, green) for red, green, _ in middle.tolist()]

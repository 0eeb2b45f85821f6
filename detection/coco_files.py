"""Read and check annotation files in COCO's format."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coordconv_apps.utils.errors import abbreviate_names
from detection.batches import DetectionTarget

_OUTSIDE_TOLERANCE = 1.0
"""Boxes may reach beyond their image by this many pixels, from rounding, without being counted."""

_LARGEST = 2**63 - 1
"""Largest integer that torch can hold; JSON has no limit."""


@dataclass(frozen=True)
class CocoAnnotations:
    """The images of an annotation file and their boxes, in the order of the image ids.

    Attributes:
        image_ids: int64 ``(N,)``.
        file_names: Paths relative to the folder of the images.
        sizes: int64 ``(N, 2)``, height and width in pixels.
        boxes: float32 ``(M, 4)``, ``(x1, y1, x2, y2)`` in pixels, image by image; parts may lie outside of the image.
        labels: int64 ``(M,)``, from 1, in the order of the category ids.
        areas: float32 ``(M,)``, areas of the objects in pixels.
        crowd: bool ``(M,)``, whether a box contains a crowd.
        starts: int64 ``(N + 1,)``. Image ``i`` has the boxes from ``starts[i]`` up to ``starts[i + 1]``.
        categories: Name of each class by category id, in the order of the ids.
        notes: Lines that count what is unusual and what was left out.
    """

    image_ids: Tensor
    file_names: npt.NDArray[np.bytes_]
    sizes: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    crowd: Tensor
    starts: Tensor
    categories: dict[int, str]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def most_objects(self) -> int:
        """Largest number of boxes in an image."""
        return int(self.starts.diff().max())

    def file_name(self, index: int) -> str:
        """Return the path of an image relative to the folder of the images."""
        return os.fsdecode(self.file_names[index])

    def check_inside(self, folder: Path, where: str, argument: str) -> None:
        """Check that no file name, absolute or with "..", leaves the folder of the images. Links may lead elsewhere.

        Args:
            folder: The folder of the images.
            where: The argument that names the annotation file, and its value, for the message.
            argument: The argument that names the folder.

        Raises:
            ValueError: A file name leaves the folder.
        """
        root = os.path.abspath(folder)
        inside = os.path.join(root, "")
        paths = {name: os.path.normpath(os.path.join(root, name)) for name in map(self.file_name, range(len(self)))}
        outside = [name for name, path in paths.items() if not (path + os.sep).startswith(inside)]
        problem = f"file names leave the folder {argument}={str(folder)!r}, which must contain all images"
        _refuse(where, problem, "file names", outside)

    def objects(self, index: int) -> DetectionTarget:
        """Return the objects in an image, crowds included."""
        own = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return {
            "boxes": self.boxes[own],
            "labels": self.labels[own],
            "area": self.areas[own],
            "iscrowd": self.crowd[own].long(),
        }

    def select(self, indices: Sequence[int]) -> CocoAnnotations:
        """Return the annotations of some images, in that order."""
        places = [torch.arange(int(self.starts[i]), int(self.starts[i + 1])) for i in indices]
        own = torch.cat([*places, torch.zeros(0, dtype=torch.int64)])
        chosen = torch.tensor(indices, dtype=torch.int64)
        counts = torch.tensor([0, *(len(place) for place in places)])
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            file_names=self.file_names[chosen.numpy()],
            sizes=self.sizes[chosen],
            boxes=self.boxes[own],
            labels=self.labels[own],
            areas=self.areas[own],
            crowd=self.crowd[own],
            starts=counts.cumsum(0),
        )


def read_coco(path: Path, argument: str) -> CocoAnnotations:
    """Read an annotation file in COCO's format, and check it. A file that has not changed is read once.

    Boxes without area, and boxes that lie outside of their image, are left out and counted.

    Args:
        path: The JSON file: "images" (id, file_name, width, height), "categories" (id, name) and "annotations" (id,
            image_id, category_id, bbox as x, y, width, height in pixels; area and iscrowd if known).
        argument: The argument that names the file, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of this kind; or an id is missing, occurs twice or refers to nothing; or a file name
            occurs twice; or a bbox is not four numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{argument}={str(path)!r}: no such file")
    stat = path.stat()
    return _read(path, f"{argument}={str(path)!r}", stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=3)  # the command line reads the classes before the data module reads the boxes
def _read(path: Path, where: str, _modified: int, _size: int) -> CocoAnnotations:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: must be a JSON file ({error})") from error
    images, categories, annotations = (_records(content, key, where) for key in ("images", "categories", "annotations"))
    if not images or not categories:
        raise ValueError(f"{where}: must have images and categories; has {len(images)} and {len(categories)}")
    names = {c["id"]: c["name"] for c in sorted(categories, key=itemgetter("id"))}
    images.sort(key=itemgetter("id"))
    place = {image["id"]: number for number, image in enumerate(images)}
    for kind, key, known in (("image", "images", place), ("category", "categories", names)):
        unknown = (a[f"{kind}_id"] for a in annotations if a[f"{kind}_id"] not in known)
        _refuse(where, f"{kind} ids of annotations are not among those of {key}", "ids", unknown)
    sizes = torch.tensor([[image["height"], image["width"]] for image in images])
    annotations.sort(key=lambda a: place[a["image_id"]])
    owners = torch.tensor([place[a["image_id"]] for a in annotations], dtype=torch.int64)
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    usable, notes = _usable(boxes, sizes[owners], [a["id"] for a in annotations], where)
    kept = [a for a, use in zip(annotations, usable.tolist(), strict=True) if use]
    label = {category: number for number, category in enumerate(names, start=1)}
    crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in kept], dtype=torch.bool)
    counts = torch.bincount(owners[usable], minlength=len(images))
    if number := int(crowd.sum()):
        notes.append(f"{where}: {number} boxes of crowds, which are not trained on")
    if number := int((counts == 0).sum()):
        notes.append(f"{where}: {number} of {len(images)} images have no boxes; used as images without objects")
    return CocoAnnotations(
        image_ids=torch.tensor([image["id"] for image in images]),
        file_names=np.array([os.fsencode(image["file_name"]) for image in images]),
        sizes=sizes,
        boxes=boxes[usable].float(),
        labels=torch.tensor([label[a["category_id"]] for a in kept], dtype=torch.int64),
        areas=torch.tensor(
            [a["area"] if _is_finite(a.get("area")) else a["bbox"][2] * a["bbox"][3] for a in kept], dtype=torch.float32
        ),
        crowd=crowd,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        categories=names,
        notes=tuple(notes),
    )


_FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
}
_WORDS: dict[type, str] = {int: "an integer of at most 64 bits", str: "a text", list: "a list of four numbers"}


def _records(content: object, key: str, where: str) -> list[dict[str, Any]]:
    """Return a list of COCO's, whose records have the necessary fields and different ids."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise ValueError(f"{where}: must be COCO's format, a mapping with lists images, categories and annotations")
    for number, record in enumerate(records):
        for field, kind in _FIELDS[key].items():
            value = record.get(field) if isinstance(record, dict) else None
            is_too_large = isinstance(value, int) and abs(value) > _LARGEST
            if not isinstance(value, kind) or isinstance(value, bool) or is_too_large:
                shown = "missing" if value is None else f"{value!r}"
                raise ValueError(f"{where}: {key}[{number}].{field}: must be {_WORDS[kind]}, is {shown}")
        if key == "annotations" and not (len(record["bbox"]) == 4 and all(map(_is_finite, record["bbox"]))):
            raise ValueError(f"{where}: {key}[{number}].bbox={record['bbox']}: must be four finite numbers")
        if key == "images" and min(record["width"], record["height"]) < 1:
            size = f"{record['width']} x {record['height']} pixels"
            raise ValueError(f"{where}: images[{number}]: has {size}, width and height must be at least 1")
    found = Counter(record["id"] for record in records)
    _refuse(where, f"ids of {key} occur more than once", "ids", (i for i, n in found.items() if n > 1))
    if key == "images":
        files = Counter(record["file_name"] for record in records)
        _refuse(where, "file names occur more than once", "file names", (name for name, n in files.items() if n > 1))
    return records


def _is_finite(value: object) -> bool:
    """Return whether a value is a number that is not NaN, infinite, or too large for torch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _refuse(where: str, problem: str, what: str, values: Iterable[object]) -> None:
    found = list(dict.fromkeys(values))
    if found:
        raise ValueError(f"{where}: {len(found)} {problem}; {what}: {abbreviate_names([str(v) for v in found])}")


def _usable(boxes: Tensor, sizes: Tensor, ids: list[int], where: str) -> tuple[Tensor, list[str]]:
    """Return the mask of boxes ``(M, 4)`` with an area inside of their images, and lines about the others."""
    limit = sizes[:, [1, 0]].repeat(1, 2).to(boxes.dtype)
    clipped = boxes.clamp(min=0).minimum(limit)
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    outside = ~empty & (clipped[:, 2:] <= clipped[:, :2]).any(1)
    across = ~empty & ~outside & ((boxes - clipped).abs() > _OUTSIDE_TOLERANCE).any(1)
    notes = []
    for mask, what in (
        (empty, "boxes without area; left out"),
        (outside, "boxes outside of their images; left out"),
        (across, "boxes reach beyond their images; cut for training, whole in the metrics"),
    ):
        found = [str(ids[i]) for i in mask.nonzero().flatten().tolist()]
        if found:
            notes.append(f"{where}: {len(found)} of {len(ids)} {what}; annotations {abbreviate_names(found)}")
    return ~empty & ~outside, notes


def check_same_categories(one: CocoAnnotations, other: CocoAnnotations, argument: str) -> None:
    """Raise `ValueError` unless two files have the same categories."""
    if one.categories != other.categories:
        difference = sorted(set(one.categories.items()) ^ set(other.categories.items()))
        named = abbreviate_names([f"{number} {name}" for number, name in difference])
        raise ValueError(f"{argument}: must have the categories of data.train_annotations; they differ in {named}")

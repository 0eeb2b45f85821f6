"""Small data sets in COCO's format for the tests of detection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detection.shapes import write_shapes


def shapes(folder: Path, train: int = 6, val: int = 4, test: int = 5) -> dict[str, str]:
    """Draw shapes; return the arguments of `CocoData` that name them."""
    write_shapes(folder, {"train": train, "val": val, "test": test})
    files = {
        f"{split}_annotations": str(folder / "annotations" / f"{split}.json") for split in ("train", "val", "test")
    }
    return files | {f"{split}_images": str(folder / split) for split in ("train", "val", "test")}


def flags(arguments: dict[str, str]) -> list[str]:
    """Return the arguments of the data as flags of the command line."""
    return ["--data.source=coco", *(f"--data.{name}={value}" for name, value in arguments.items())]


def content(**changes: Any) -> dict[str, Any]:  # noqa: ANN401  # any list of the file
    """Return a sound annotation file of two images and three boxes, whose category ids have gaps."""
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 40, "height": 30},
            {"id": 4, "file_name": "a.png", "width": 20, "height": 50},
        ],
        "categories": [{"id": 70, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 70, "bbox": [1, 2, 10, 20], "area": 120.0, "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 3, "bbox": [0, 0, 20, 50], "iscrowd": 1},
            {"id": 5, "image_id": 9, "category_id": 3, "bbox": [5.5, 6, 7, 8]},
        ],
        **changes,
    }


def write(path: Path, value: object) -> Path:
    """Write a value as a JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return path

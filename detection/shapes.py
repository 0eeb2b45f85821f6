"""``python -m detection.shapes FOLDER``: draw a tiny data set in COCO's format, circles, squares and triangles.

Each split is a folder of PNG images with a file ``annotations/<split>.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from coordconv_apps.utils.argument_checks import given_path
from coordconv_apps.utils.files import atomic_write

SHAPES = {1: "circle", 2: "square", 3: "triangle"}
"""Names of the categories by id."""

_FILLED = {"circle": math.pi / 4, "square": 1.0, "triangle": 0.5}
"""Fraction of its box that a shape fills."""

FOLDER = "data/shapes"
"""The folder that the config ``coco`` reads."""

COUNTS = {"train": 200, "val": 40, "test": 40}
"""Number of images of each split."""

SIZES = ((128, 96), (96, 128), (128, 128))
"""Width and height of images in pixels."""


def draw_shapes(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, list[tuple[int, list[int]]]]:
    """Draw one to four shapes, which do not overlap, in colours of their own on a plain ground.

    Args:
        rng: Source of random numbers.
        size: Width and height of the image in pixels.

    Returns:
        The image, and for each shape its category and its box ``[x, y, width, height]`` in pixels.

    Example:
        >>> image, shapes = draw_shapes(np.random.default_rng(0), (96, 64))
        >>> image.size, 1 <= len(shapes) <= 4
        ((96, 64), True)
    """
    ground = int(rng.integers(0, 80))
    image = Image.new("RGB", size, (ground,) * 3)
    draw = ImageDraw.Draw(image)
    shapes: list[tuple[int, list[int]]] = []
    for _ in range(int(rng.integers(1, 5))):
        side = int(rng.integers(20, 45))
        x, y = (int(rng.integers(0, length - side + 1)) for length in size)
        if any(
            abs(x + side / 2 - a - c / 2) < (side + c) / 2 and abs(y + side / 2 - b - d / 2) < (side + d) / 2
            for _, (a, b, c, d) in shapes
        ):
            continue
        category = int(rng.integers(1, len(SHAPES) + 1))
        colour = tuple(int(value) for value in rng.integers(120, 256, 3))
        last = (x + side - 1, y + side - 1)
        if SHAPES[category] == "circle":
            draw.ellipse(((x, y), last), fill=colour)
        elif SHAPES[category] == "square":
            draw.rectangle(((x, y), last), fill=colour)
        else:
            draw.polygon([(x + (side - 1) / 2, y), (x, last[1]), last], fill=colour)
        shapes.append((category, [x, y, side, side]))
    return image, shapes


def write_shapes(folder: Path, counts: dict[str, int] | None = None, seed: int = 0) -> list[Path]:
    """Draw the images of each split and write them with their annotations.

    Args:
        folder: The folder; it is created if needed, and files of the same names are replaced.
        counts: Number of images by split; `COUNTS` if None.
        seed: Seed of the drawing.

    Returns:
        The annotation files.
    """
    written = []
    for number, (split, count) in enumerate((counts or COUNTS).items()):
        rng = np.random.default_rng([seed, number])
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(1, count + 1):
            image, shapes = draw_shapes(rng, SIZES[int(rng.integers(len(SIZES)))])
            name = f"{index:04d}.png"
            with atomic_write(folder / split / name, "wb") as file:
                image.save(file, format="PNG")
            images.append({"id": index, "file_name": name, "width": image.width, "height": image.height})
            for category, box in shapes:
                area = round(box[2] * box[3] * _FILLED[SHAPES[category]], 1)
                ids = {"id": len(annotations) + 1, "image_id": index, "category_id": category}
                annotations.append(ids | {"bbox": box, "area": area, "iscrowd": 0})
        categories = [{"id": number, "name": name} for number, name in SHAPES.items()]
        path = folder / "annotations" / f"{split}.json"
        with atomic_write(path) as stream:
            json.dump({"images": images, "categories": categories, "annotations": annotations}, stream)
        written.append(path)
    return written


def main(args: Sequence[str] | None = None) -> None:
    """Write the data set, and print what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m detection.shapes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=FOLDER, help=f"folder of the data set (default: {FOLDER})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (default: 0)")
    for split, count in COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"number of {split} images (default: {count})")
    given = parser.parse_args(args)
    counts = {split: getattr(given, split) for split in COUNTS}
    for name, value in {"seed": given.seed, **counts}.items():
        least = 0 if name == "seed" else 1
        if value < least:
            parser.error(f"--{name}={value}: must be at least {least}")
    try:
        folder = given_path(given.folder, "folder")
        for path in write_shapes(folder, counts, given.seed):
            print(path)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    command = ["python", "-m", "detection", "fit", "--config", "coco"]
    if folder != Path(FOLDER):
        for split in COUNTS:
            command.append(f"--data.{split}_annotations={folder / 'annotations' / f'{split}.json'}")
            command.append(f"--data.{split}_images={folder / split}")
    print(f"next: {shlex.join(command)}")


if __name__ == "__main__":
    main()

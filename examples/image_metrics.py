"""Measure mode collapse on folders of images: real images, and those of any generator, also one from elsewhere.

The table shows each metric beside the value that real images achieve, which comes from comparing one half of them with
the other half:

- patch_distance compares colours, edges and textures (sliced Wasserstein distance of 7 x 7 patches; lower is better).
- coverage is the fraction of real images with a generated image nearby, recall is similar; both fall when modes are
  missing. precision and density fall when generated images look like no real one.
- support_size estimates from repetitions how many different images the generator makes (birthday paradox).

All but patch_distance compare thumbnails of 8 x 8 pixels. With the features of a pretrained network in place of
`thumbnails` they compare content.

Run it from the clone; the folders may hold any formats and sizes, subfolders included:

    python examples/image_metrics.py my/photos my/samples --size 64
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from coordconv_apps.data.image_files import open_images
from generative.datasets import read_square_image
from generative.metrics import PatchDistance, precision_recall_density_coverage, support_size
from generative.metrics.coverage import NEIGHBOURS
from generative.metrics.patch_distance import SIDE
from generative.pixel_range import to_float

THUMBNAIL = 8
SAME = 16
"""Two images count as equal if no value of their thumbnails differs by more than half of this, of 255."""


def read_folder(folder: Path, name: str, size: int, most: int) -> Tensor:
    """Read at most ``most`` images of a folder as squares: float32 ``(N, 3, size, size)``, -1 to 1."""
    files, found = open_images(folder, name, on_bad_image="skip", read_file=partial(read_square_image, size=size))
    if found.message:
        print(found.message)
    # A random choice: neighbours in a folder are often alike.
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:most]
    return to_float(torch.stack([files.read(index) for index in chosen.tolist()]))


def thumbnails(images: Tensor) -> Tensor:
    """Return the pixels of small copies of the images as points, float64 ``(N, 192)``, 0 to 255."""
    return (adaptive_avg_pool2d(images.double(), THUMBNAIL).flatten(1) + 1) * 127.5


def measure(real: Tensor, generated: Tensor) -> dict[str, tuple[float, float]]:
    """Return each metric of generated images, and its value for real ones: one half of them beside the other half."""
    number = min(len(real) // 2, len(generated))
    if number <= NEIGHBOURS:
        least = f"must be at least {2 * NEIGHBOURS + 2} and {NEIGHBOURS + 1}"
        raise ValueError(f"real, generated: {len(real)} and {len(generated)} images: {least}")
    patches = PatchDistance(real.shape[-1])
    patches.update(real[: 2 * number], real=True)
    patches.update(generated[:number], real=False)
    distances = {name: float(value) for name, value in patches.compute().items()}
    table = {"patch_distance": (distances["patch_distance"], distances["floor/patch_distance"])}

    reference, other_half = thumbnails(real[: 2 * number]).chunk(2)
    columns = []
    for points in (thumbnails(generated[:number]), other_half):
        same_kind = torch.zeros(number, 1, dtype=torch.int64)
        size = support_size(points / SAME, same_kind)
        columns.append({**precision_recall_density_coverage(reference, points), "support_size": size})
    return table | {name: (value, columns[1][name]) for name, value in columns[0].items()}


def main(args: Sequence[str] | None = None) -> dict[str, tuple[float, float]]:
    """Print and return each metric of the generated images, and that of real images."""
    parser = argparse.ArgumentParser(description="Measure how much of a folder of images a generator covers.")
    parser.add_argument("real", type=Path, help="folder of real images")
    parser.add_argument("generated", type=Path, help="folder of generated images")
    parser.add_argument("--size", type=int, default=64, help="height and width to which images are resized")
    parser.add_argument("--most", type=int, default=5000, help="largest number of images read from a folder")
    options = parser.parse_args(args)
    if options.most < 1:
        parser.error(f"--most={options.most}: must be at least 1")
    if options.size < SIDE:
        parser.error(f"--size={options.size}: must be at least {SIDE}, the size of a patch")
    try:
        real = read_folder(options.real, "real", options.size, options.most)
        generated = read_folder(options.generated, "generated", options.size, options.most)
        table = measure(real, generated)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{min(len(real) // 2, len(generated))} generated images beside as many real ones\n")
    print(f"{'':16}{'generated':>12}{'real images':>14}")
    for name, values in table.items():
        print(f"{name:16}{values[0]:12.4g}{values[1]:14.4g}")
    return table


if __name__ == "__main__":
    main()

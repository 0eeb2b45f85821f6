"""Metrics of how well generated two-shape images cover the data, exact over batches and processes.

`TwoShapeMetrics` decodes real and generated images (`generative.two_shape_decoder`) and compares the objects of as
many real and generated images (`COMPARED`) at a time. Each metric ``<name>`` comes with ``floor/<name>``, its
value for real data: other real images take the place of the generated ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from generative.metrics.coverage import precision_recall_density_coverage
from generative.metrics.errors import TooFewImages
from generative.metrics.histograms import bins_per_axis, count_points, histogram_metrics
from generative.metrics.intrinsic_dimension import SUBSET_SIZE, intrinsic_dimension, local_dimension
from generative.metrics.sliced_wasserstein import sliced_wasserstein_distance
from generative.metrics.support_size import support_size
from generative.two_shape_decoder import decode
from generative.two_shapes import COLOURS, SHAPES, check_size

COMPARED = 500
"""Number of real, and of generated, images in each comparison, so that the metrics of validations and tests of any size
are comparable."""

MIN_IMAGES = 10  # smallest number of images on each side of a comparison
_FIELDS = 7  # of an image in the state: whether it is valid, four coordinates, two shapes
_RANGE_TOLERANCE = 1e-3  # rounding may move values out of [-1, 1] by this much


class DecodedImages(NamedTuple):
    """The objects in a set of images; centres and shapes are those of the ``n`` valid images, on the CPU.

    Attributes:
        number: Number of images, valid or not.
        centers: float64 ``(n, 4)``: x and y of red, x and y of blue, in pixels.
        jittered_centers: The same, each coordinate moved by up to half a pixel at random. The integers of real images
            and the fractions of generated ones then count alike, and distances do not tie. (On the integers alone, the
            density of 5,000 real images of 32 x 32 pixels would be 1.2 instead of 1.)
        shapes: int64 ``(n, 2)``, of red and blue.
    """

    number: int
    centers: Tensor
    jittered_centers: Tensor
    shapes: Tensor


def compare_two_shapes(
    images: DecodedImages, reference: DecodedImages, image_size: int, radius: int
) -> dict[str, float]:
    """Compute the metrics that compare a set of images with the same number of real images, the reference.

    - ``precision``, ``recall``, ``density`` and ``coverage`` of the four coordinates of both centres. Invalid images
      count as generated images outside every ball. Without a valid image all four are 0.
    - The metrics of `cloud_metrics`.
    - ``pairs/circle_square`` (red first) and so on: fractions of the four pairs of shapes. ``pairs_distance``: their
      total variation distance from the reference, in [0, 1]. Without a valid image they are 0 and 1.
    """
    values = precision_recall_density_coverage(reference.jittered_centers, images.jittered_centers, images.number)
    values |= cloud_metrics(images, reference, image_size, radius)
    fractions, real_fractions = (_pair_fractions(side.shapes) for side in (images, reference))
    pairs = [f"pairs/{red}_{blue}" for red in SHAPES for blue in SHAPES]
    values |= dict(zip(pairs, fractions.tolist(), strict=True))
    values["pairs_distance"] = float((fractions - real_fractions).abs().sum()) / 2 if len(images.shapes) else 1.0
    return values


def cloud_metrics(images: DecodedImages, reference: DecodedImages, image_size: int, radius: int) -> dict[str, float]:
    """Compute the metrics of the red centres, the blue centres, and their differences (red minus blue).

    Metrics have the prefixes ``red/``, ``blue/`` and ``difference/``. Those without a prefix, all but ``entropy``, are
    means over red and blue.

    - Those of `histogram_metrics`. Without a valid image, coverage and entropy are 0 and the others are 1.
    - ``sliced_wasserstein``, in pixels. Without a valid image it is the largest possible distance, the diagonal of the
      square that contains the data's cloud.
    - ``intrinsic_dimension`` and ``local_dimension``: 2 for the data, 1 for a ring and 0 without a valid image. The
      cloud of differences has a hole and is thin at its edge: for the data, its dimension at the same scale is 1.8.
    """
    values: dict[str, float] = {}
    sides = (images.centers, reference.centers, images.jittered_centers, reference.jittered_centers)
    all_clouds = [_point_clouds(centers, image_size) for centers in sides]
    for name in all_clouds[0]:
        points, real, jittered, real_jittered = (clouds[name] for clouds in all_clouds)
        width = 1 if name in COLOURS else 2  # the cloud of differences is twice as wide as those of centres
        half_width = width * (image_size / 2 - radius)
        bins = bins_per_axis(images.number)
        found = histogram_metrics(*(count_points(cloud, half_width, bins) for cloud in (real_jittered, jittered)))
        distance = sliced_wasserstein_distance(real, points) if len(points) else 2 * half_width * 2**0.5
        found["sliced_wasserstein"] = distance
        found["intrinsic_dimension"] = intrinsic_dimension(points, width**2 * SUBSET_SIZE)
        found["local_dimension"] = local_dimension(points, image_size)
        values |= {f"{name}/{key}": value for key, value in found.items()}
    means = {key: sum(values[f"{colour}/{key}"] for colour in COLOURS) / len(COLOURS) for key in found}
    del means["entropy"]
    return values | means


def _point_clouds(centers: Tensor, image_size: int) -> dict[str, Tensor]:
    """Return points ``(n, 2)`` in pixels; centres are relative to the middle of the image."""
    red, blue = centers[:, :2], centers[:, 2:]
    middle = (image_size - 1) / 2
    return {"red": red - middle, "blue": blue - middle, "difference": red - blue}


def _pair_fractions(shapes: Tensor) -> Tensor:
    counts = torch.bincount(shapes[:, 0] * len(SHAPES) + shapes[:, 1], minlength=len(SHAPES) ** 2).double()
    return counts / max(len(shapes), 1)


class TwoShapeMetrics(Metric):
    """Compare generated two-shape images with real ones.

    - The metrics of `compare_two_shapes`: each is the mean over sets of `COMPARED` generated images, each compared with
      as many real images. Images beyond the last whole set do not count. A coverage, for example, falls with the number
      of compared images, because real images then have closer neighbours: its values are comparable if at least
      ``2 * COMPARED`` real images are given. Otherwise there is one smaller set of ``m = min(generated, real // 2)``.
    - ``invalid``: fraction of all images that are not in the data set (`DecodedScenes.valid`), in [0, 1].
    - ``support_size``: an estimate of the number of different images, from m images. Images are equal if their shapes
      are the same and their centres differ by at most half a pixel. Without a valid image it is 0.

    Each metric ``<name>`` comes with ``floor/<name>``, its value for real data: m other real images take the place of
    the generated ones. All images are drawn at random with a fixed seed after sorting, so that the metrics depend
    neither on batches nor on processes.

    Args:
        image_size: Height and width of the images, in pixels.
        radius: Radius of a circle, half the side of a square, in pixels.
        seed: Seed for drawing images.

    Example:
        >>> import torch
        >>> from generative.pixel_range import to_float
        >>> from generative.two_shapes import draw_scenes, render
        >>> scenes = draw_scenes(90, image_size=32, radius=5, generator=torch.Generator().manual_seed(0))
        >>> images = to_float(render(scenes, image_size=32, radius=5))
        >>> metrics = TwoShapeMetrics(image_size=32, radius=5)
        >>> metrics.update(images[:60], real=True)
        >>> metrics.update(images[60:61].repeat(30, 1, 1, 1), real=False)  # mode collapse: one image
        >>> values = metrics.compute()
        >>> names = ("invalid", "coverage", "floor/coverage", "intrinsic_dimension", "support_size")
        >>> {name: round(float(values[name]), 2) for name in names}
        {'invalid': 0.0, 'coverage': 0.17, 'floor/coverage': 0.9, 'intrinsic_dimension': 0.0, 'support_size': 1.0}
    """

    is_differentiable = False
    full_state_update = False

    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, image_size: int = 64, radius: int = 10, seed: int = 0) -> None:
        super().__init__()
        check_size(image_size, radius)
        self.image_size, self.radius, self.seed = image_size, radius, seed
        # Flat, because a process without images gathers an empty tensor of one axis.
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch of real or generated images: ``(B, 3, H, W)``, floating point in [-1, 1].

        An image with a NaN or infinity counts as invalid.
        """
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images of shape {tuple(images.shape)}: must be (B, 3, {size}, {size})")
        if not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: must be floating point, in [-1, 1]")
        largest = float(images.detach().abs().nan_to_num(0.0, posinf=0.0).max()) if images.numel() else 0.0
        if largest > 1 + _RANGE_TOLERANCE:
            raise ValueError(f"images with values up to {largest:g}: must be in [-1, 1]")
        decoded = decode(images, self.radius)
        fields = [decoded.valid[:, None], decoded.centers.flatten(1), decoded.shapes]
        rows = torch.cat([field.float() for field in fields], 1).flatten()
        (self.real if real else self.generated).append(rows)

    def compute(self) -> dict[str, Tensor]:
        """Return all metrics by name, and those of real data as ``floor/<name>``.

        Raises:
            TooFewImages: There are fewer than `MIN_IMAGES` generated or twice as many real images.
            ValueError: Too few of the real images show two objects of this radius.
        """
        real, generated = _sorted_rows(self.real), _sorted_rows(self.generated)
        for name, count, least in (("real", len(real), 2 * MIN_IMAGES), ("generated", len(generated), MIN_IMAGES)):
            if count < least:
                raise TooFewImages(f"{count} {name} images are too few to compare; at least {least} are needed")
        number = min(len(generated), len(real) // 2)
        generator = torch.Generator().manual_seed(self.seed)
        real_order, order = (torch.randperm(len(rows), generator=generator) for rows in (real, generated))
        reference, other = real[real_order[:number]], real[real_order[number : 2 * number]]
        chosen = generated[order[:number]]
        size = min(number, COMPARED)
        sets = zip(*(rows[: number // size * size].split(size) for rows in (reference, other, chosen)), strict=True)
        found = [self._compare(*(_decoded_images(rows, generator) for rows in own)) for own in sets]
        values = {name: sum(own[name] for own in found) / len(found) for name in found[0]}
        for prefix, everything, drawn in (("", generated, chosen), ("floor/", real, other)):
            valid = drawn[drawn[:, 0] > 0]
            values[f"{prefix}invalid"] = float((everything[:, 0] == 0).double().mean())
            values[f"{prefix}support_size"] = support_size(valid[:, 1:5], valid[:, 5:].long())
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}

    def _compare(self, reference: DecodedImages, other: DecodedImages, images: DecodedImages) -> dict[str, float]:
        """Compare images and other real images with the reference, all of them equally many."""
        if (fewest := min(len(reference.centers), len(other.centers))) < MIN_IMAGES:
            raise ValueError(
                f"real images: only {fewest} of {reference.number} show a red and a blue object of radius"
                f" {self.radius}, must be at least {MIN_IMAGES}"
            )
        values = compare_two_shapes(images, reference, self.image_size, self.radius)
        real_values = compare_two_shapes(other, reference, self.image_size, self.radius)
        return values | {f"floor/{name}": value for name, value in real_values.items()}


def _decoded_images(rows: Tensor, generator: torch.Generator) -> DecodedImages:
    valid = rows[rows[:, 0] > 0]
    centers = valid[:, 1:5].contiguous()
    jittered = centers + torch.rand(centers.shape, generator=generator, dtype=torch.float64) - 0.5
    return DecodedImages(len(rows), centers, jittered, valid[:, 5:].long())


def _sorted_rows(state: list[Tensor] | Tensor) -> Tensor:
    """Return the rows of a state in lexicographical order: float64 ``(n, _FIELDS)`` on the CPU."""
    if isinstance(state, list) and not state:
        return torch.zeros(0, _FIELDS, dtype=torch.float64)
    rows = dim_zero_cat(state).reshape(-1, _FIELDS).cpu().double().numpy()
    return torch.from_numpy(rows[np.lexsort(rows.T[::-1])])

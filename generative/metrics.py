"""How well generated two-shape images cover the data, as metrics that add up across processes.

Each metric takes real and generated images, reads from them what they show (`generative.decode`) and compares that:
equal numbers of images, and beside each figure its floor, the same figure of real images. Use `TwoShapeMetrics` for all
of them, or any of its parts alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from generative import clouds
from generative.decode import decode
from generative.dimension import TOGETHER, intrinsic_dimension, local_dimension
from generative.shapes import COLOURS, SHAPES, check_size

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_IMAGES = 10
"""Fewest images on each side of a comparison."""

_FIELDS = 7  # of an image: whether it is valid, four coordinates, two shapes
_SLACK = 1e-3  # by how far values of images may pass -1 and 1: rounding


class Sample(NamedTuple):
    """What a number of images show.

    Attributes:
        number: Images, valid or not.
        invalid: Share of images that are not valid, in [0, 1], of all there are, which may be more than ``number``.
        centers: float64 ``(n, 4)``, of the valid ones: x and y of red, x and y of blue, in pixels; on the CPU.
        blurred: The same, each coordinate moved by up to half a pixel at random. So the whole numbers of real images
            and the fractions of generated ones count alike, and distances do not tie: on the whole numbers alone, the
            density of real images among 5,000 others of 32 x 32 pixels is 1.2 in place of 1.
        shapes: int64 ``(n, 2)``, of red and blue.
        image_size: Height and width of an image, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
    """

    number: int
    invalid: float
    centers: Tensor
    blurred: Tensor
    shapes: Tensor
    image_size: int
    radius: int


class _Cloud(NamedTuple):
    """Centres of one colour, or red's minus blue's; what is ``2 * reach`` wide holds all of the data's around 0."""

    name: str
    points: Tensor
    reach: float


def _clouds(sample: Sample, centers: Tensor) -> list[_Cloud]:
    red, blue = centers[:, :2], centers[:, 2:]
    middle, reach = (sample.image_size - 1) / 2, sample.image_size / 2 - sample.radius
    return [
        _Cloud(COLOURS[0], red - middle, reach),
        _Cloud(COLOURS[1], blue - middle, reach),
        _Cloud("difference", red - blue, 2 * reach),
    ]


def _with_means(figures: dict[str, float], *keys: str) -> dict[str, float]:
    """Figures by cloud and key, and of these keys the means over red and blue."""
    means = {key: sum(figures[f"{colour}/{key}"] for colour in COLOURS) / len(COLOURS) for key in keys}
    return figures | means


def invalid_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """``invalid``: share of all images that are not of the data set (`generative.decode.Decoded`), in [0, 1]."""
    return {"invalid": sample.invalid}


def neighbour_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """``precision``, ``recall``, ``density``, ``coverage`` of the four coordinates of both centres.

    Images that are not valid count as generated, and lie nowhere. Without valid ones all four are 0.
    See `generative.clouds.neighbour_figures`.
    """
    return clouds.neighbour_figures(reference.blurred, sample.blurred, sample.number)


def histogram_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """Of each cloud ``bin_coverage``, ``entropy``, ``entropy_reduction``, ``js_divergence`` and ``different_bins``.

    And, but for the entropy, their means over red and blue. Without valid images coverage and entropy are 0, the others
    1. See `generative.clouds.histogram_figures`.
    """
    figures: dict[str, float] = {}
    bins = clouds.bins_for(sample.number)
    for cloud, other in zip(_clouds(sample, sample.blurred), _clouds(reference, reference.blurred), strict=True):
        counts = clouds.histograms(other.points, cloud.points, -cloud.reach, cloud.reach, bins)
        figures |= {f"{cloud.name}/{key}": value for key, value in clouds.histogram_figures(counts).items()}
    return _with_means(figures, "bin_coverage", "entropy_reduction", "js_divergence", "different_bins")


def wasserstein_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """Of each cloud ``sliced_wasserstein``, in pixels, and its mean over red and blue.

    Without valid images: the diagonal of the square of the data's cloud, at least that between any two clouds in it.
    See `generative.clouds.sliced_wasserstein`.
    """
    figures = {}
    for cloud, other in zip(_clouds(sample, sample.centers), _clouds(reference, reference.centers), strict=True):
        worst = 2 * cloud.reach * 2**0.5
        distance = clouds.sliced_wasserstein(other.points, cloud.points) if len(cloud.points) else worst
        figures[f"{cloud.name}/sliced_wasserstein"] = distance
    return _with_means(figures, "sliced_wasserstein")


def dimension_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """Of each cloud ``intrinsic_dimension`` and ``local_dimension``, and their means over red and blue.

    2 for the data, 1 for a ring; without valid images 0. The cloud of differences has a hole, and is thin at its edge:
    of the data it is 1.8 at the same scale. See `generative.dimension`.
    """
    figures: dict[str, float] = {}
    for name, points, _ in _clouds(sample, sample.centers):
        # A cloud twice as wide: at the same scale there are four times as many points in it.
        together = TOGETHER if name in COLOURS else 4 * TOGETHER
        figures[f"{name}/intrinsic_dimension"] = intrinsic_dimension(points, together)
        figures[f"{name}/local_dimension"] = local_dimension(points, sample.image_size)
    return _with_means(figures, "intrinsic_dimension", "local_dimension")


def pair_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """Shares of the four pairs of shapes, red first, as ``pairs/circle_square``, and ``pairs_distance``.

    The latter is the total variation distance from the reference's shares, in [0, 1]. Without valid images the shares
    are 0 and the distance is 1.
    """
    shares, others = (_pair_shares(part.shapes) for part in (sample, reference))
    names = [f"pairs/{red}_{blue}" for red in SHAPES for blue in SHAPES]
    distance = float((shares - others).abs().sum()) / 2 if len(sample.shapes) else 1.0
    return dict(zip(names, shares.tolist(), strict=True)) | {"pairs_distance": distance}


def _pair_shares(shapes: Tensor) -> Tensor:
    counts = torch.bincount(shapes[:, 0] * len(SHAPES) + shapes[:, 1], minlength=len(SHAPES) ** 2).double()
    return counts / max(len(shapes), 1)


def support_figures(sample: Sample, reference: Sample) -> dict[str, float]:
    """``support_size``: how many different images there are, as far as so many images can tell.

    Images are the same if their shapes are, and their centres to half a pixel. Without valid images it is 0. See
    `generative.clouds.support_size`.
    """
    return {"support_size": clouds.support_size(sample.centers, sample.shapes)}


class TwoShapeMetric(Metric):
    """Figures of generated two-shape images beside real ones; a subclass says which.

    The comparison is always of equal numbers, ``m = min(generated, real // 2)``: of the real images, m are the
    reference and m others the floor; m generated images, and likewise the floor, are compared with the reference.
    Which ones is drawn at random with a fixed seed after all are sorted, so that the figures depend neither on batches
    nor on processes. (``invalid`` alone is of all images, generated or real.)

    Args:
        image_size: Height and width of the images, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
        seed: Fixes which images are drawn.

    Raises:
        ValueError: Two objects of ``radius`` do not fit into an image.
    """

    is_differentiable = False
    full_state_update = False

    figures: tuple[Callable[[Sample, Sample], dict[str, float]], ...] = ()
    """Functions of what images show and of what the reference does."""

    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, image_size: int = 64, radius: int = 10, seed: int = 0) -> None:
        super().__init__()
        check_size(image_size, radius)
        self.image_size, self.radius, self.seed = image_size, radius, seed
        # Rows one after the other, flat: a process without images gathers an empty tensor of one axis.
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images.

        Args:
            images: ``(B, 3, H, W)``, floating point in [-1, 1].
            real: Whether they are of the data set; else they are generated.

        Raises:
            ValueError: The images are of another shape, type or range.
        """
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images of shape {tuple(images.shape)}: must be (B, 3, {size}, {size})")
        if not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: must be floating point, in [-1, 1]")
        # What is not finite passes: it makes an image invalid.
        most = float(images.detach().abs().nan_to_num(0.0, posinf=0.0).max()) if images.numel() else 0.0
        if most > 1 + _SLACK:
            raise ValueError(f"images with values up to {most:g}: must be in [-1, 1]")
        seen = decode(images, self.radius)
        fields = [seen.valid[:, None], seen.centers.flatten(1), seen.shapes]
        rows = torch.cat([field.float() for field in fields], 1).flatten()
        (self.real if real else self.generated).append(rows)

    def compute(self) -> dict[str, Tensor]:
        """The figures by name, float32 scalars; those of real images as ``floor/<name>``.

        Raises:
            ValueError: There are too few images to compare.
        """
        real, generated = _sorted_rows(self.real), _sorted_rows(self.generated)
        for name, count, least in (("real", len(real), 2 * MIN_IMAGES), ("generated", len(generated), MIN_IMAGES)):
            if count < least:
                raise ValueError(f"{count} {name} images: must be at least {least} to compare")
        number = min(len(generated), len(real) // 2)
        generator = torch.Generator().manual_seed(self.seed)
        real_order, order = (torch.randperm(len(rows), generator=generator) for rows in (real, generated))
        reference = self._sample(real, real_order[:number], generator)
        floor = self._sample(real, real_order[number : 2 * number], generator)
        sample = self._sample(generated, order[:number], generator)
        if (fewest := min(len(reference.centers), len(floor.centers))) < MIN_IMAGES:
            raise ValueError(
                f"real images: only {fewest} of {number} show a red and a blue object of radius {self.radius},"
                f" must be at least {MIN_IMAGES}"
            )
        values: dict[str, float] = {}
        for figures in self.figures:
            values |= figures(sample, reference)
            values |= {f"floor/{name}": value for name, value in figures(floor, reference).items()}
        return {name: torch.tensor(value, device=self.device) for name, value in values.items()}

    def _sample(self, rows: Tensor, chosen: Tensor, generator: torch.Generator) -> Sample:
        invalid = float((rows[:, 0] == 0).double().mean())
        rows = rows[chosen]
        valid = rows[rows[:, 0] > 0]
        centers = valid[:, 1:5].contiguous()
        blurred = centers + torch.rand(centers.shape, generator=generator, dtype=torch.float64) - 0.5
        return Sample(
            len(rows), invalid, centers, blurred, valid[:, 5:].long(), image_size=self.image_size, radius=self.radius
        )


def _sorted_rows(state: list[Tensor] | Tensor) -> Tensor:
    """Rows of a state in lexicographical order: float64 ``(n, _FIELDS)`` on the CPU."""
    if isinstance(state, list) and not state:
        return torch.zeros(0, _FIELDS, dtype=torch.float64)
    rows = dim_zero_cat(state).reshape(-1, _FIELDS).cpu().double().numpy()
    return torch.from_numpy(rows[np.lexsort(rows.T[::-1])])


class InvalidShare(TwoShapeMetric):
    """How many images are not of the data set, as `invalid_figures`."""

    figures = (invalid_figures,)


class NeighbourMetrics(TwoShapeMetric):
    """Precision, recall, density and coverage, as `neighbour_figures`."""

    figures = (neighbour_figures,)


class HistogramMetrics(TwoShapeMetric):
    """Coverage, entropy and divergence of histograms, as `histogram_figures`."""

    figures = (histogram_figures,)


class WassersteinMetrics(TwoShapeMetric):
    """Sliced Wasserstein distance, as `wasserstein_figures`."""

    figures = (wasserstein_figures,)


class DimensionMetrics(TwoShapeMetric):
    """Dimension of the clouds of centres, as `dimension_figures`."""

    figures = (dimension_figures,)


class ShapePairMetrics(TwoShapeMetric):
    """Which pairs of shapes there are, as `pair_figures`."""

    figures = (pair_figures,)


class SupportSize(TwoShapeMetric):
    """How many different images there are, as `support_figures`."""

    figures = (support_figures,)


class TwoShapeMetrics(TwoShapeMetric):
    """All figures: those of each class above, by the same names."""

    figures = (
        invalid_figures,
        neighbour_figures,
        histogram_figures,
        wasserstein_figures,
        dimension_figures,
        pair_figures,
        support_figures,
    )

"""Sliced Wasserstein distance of image patches: a metric for images of any kind, without a pretrained network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from generative.metrics.errors import TooFewImages

SIDE = 7  # height and width of a patch, in pixels, as by Karras et al.
MIN_IMAGES = 2  # smallest number of images on each side of a comparison
_PATCHES = 16  # in each image
_DIRECTIONS = 64  # onto which patches are projected


class PatchDistance(Metric):
    """Sliced Wasserstein distance between patches of real and generated images (Karras et al., 2018, section 5).

    Patches of 7 x 7 pixels, from the same 16 places of every image, are projected onto 64 random directions. For each
    direction, the distance between the two distributions is that between their sorted values. The metric compares
    colours, edges and textures, but not the content of whole images. It uses the scale of the images only, not a
    Laplacian pyramid.

    One half of the real images is the reference, and equal numbers of images are compared. The other half of the real
    images gives ``floor/patch_distance``, the value that a perfect generator would achieve.

    Args:
        image_size: Height and width of the images, in pixels, at least 7.
        seed: Seed of the places, the directions and the halves.

    Example:
        >>> import torch
        >>> images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> metric = PatchDistance(image_size=16)
        >>> metric.update(images[:20], real=True)
        >>> metric.update(images[20:] / 2, real=False)  # half the contrast
        >>> {name: round(float(value), 2) for name, value in metric.compute().items()}
        {'patch_distance': 0.24, 'floor/patch_distance': 0.09}
    """

    is_differentiable = False
    full_state_update = False

    real: list[Tensor]
    generated: list[Tensor]
    places: Tensor
    directions: Tensor

    def __init__(self, image_size: int, seed: int = 0) -> None:
        super().__init__()
        if image_size < SIDE:
            raise ValueError(f"image_size={image_size}: must be at least {SIDE}")
        self.image_size, self.seed = image_size, seed
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(3 * SIDE**2, _DIRECTIONS, generator=generator)
        places = torch.randint((image_size - SIDE + 1) ** 2, (_PATCHES,), generator=generator)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("directions", directions / directions.norm(dim=0), persistent=False)
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch of real or generated images: ``(B, 3, H, W)``, floating point in [-1, 1]."""
        size = self.image_size
        if images.shape[1:] != (3, size, size) or not images.is_floating_point():
            raise ValueError(
                f"images of shape {tuple(images.shape)} and {images.dtype}: must be floating point"
                f" (B, 3, {size}, {size})"
            )
        windows = images.float().unfold(2, SIDE, 1).unfold(3, SIDE, 1)
        across = windows.shape[3]
        patches = windows[:, :, self.places // across, self.places % across].movedim(2, 1).flatten(2)
        with torch.autocast(images.device.type, enabled=False):  # half precision would change the distance
            projected = patches @ self.directions.float()
        # Flat, because a process without images gathers an empty tensor of one axis.
        (self.real if real else self.generated).append(projected.flatten())

    def compute(self) -> dict[str, Tensor]:
        """Return ``patch_distance`` and ``floor/patch_distance``, in the units of pixel values.

        Raises:
            TooFewImages: There are fewer than `MIN_IMAGES` generated or twice as many real images.
        """
        real, generated = self._shuffled_rows(self.real), self._shuffled_rows(self.generated)
        number = min(len(generated), len(real) // 2)
        if number < MIN_IMAGES:
            counts = f"{len(real)} real and {len(generated)} generated images"
            raise TooFewImages(f"{counts}: must be at least {2 * MIN_IMAGES} and {MIN_IMAGES}")
        reference, other_half = real[:number], real[number : 2 * number]
        return {
            "patch_distance": _distance(reference, generated[:number]),
            "floor/patch_distance": _distance(reference, other_half),
        }

    def _shuffled_rows(self, state: list[Tensor] | Tensor) -> Tensor:
        """Return one row for each image, in a random order that is independent of batches and processes."""
        if isinstance(state, list) and not state:
            return torch.zeros(0, _PATCHES * _DIRECTIONS)
        rows = dim_zero_cat(state).view(-1, _PATCHES * _DIRECTIONS).cpu()
        # Sort by sums over all patches: a single patch is the same in many images with a plain background.
        keys = rows.view(-1, _PATCHES, _DIRECTIONS).sum(1)[:, :8]
        order = torch.from_numpy(np.lexsort(keys.T.numpy()))
        return rows[order[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]]


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean over directions of the distance between two equally large sets of projections."""
    first, second = (rows.view(-1, _DIRECTIONS).sort(0).values for rows in (first, second))
    return (first - second).abs().mean()

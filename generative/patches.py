"""How far generated pictures are from real ones, for any pictures: without a network, and without a download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

SIDE = 7
"""Height and width of a patch, in pixels, as by Karras et al."""

MIN_PICTURES = 2
"""Fewest images on each side of a comparison."""

_PATCHES, _DIRECTIONS = 16, 64  # of each image; on which patches are projected


class PatchDistance(Metric):
    """Sliced Wasserstein distance between patches of real and of generated images (Karras et al., 2018, section 5).

    Patches of 7 x 7 pixels, from the same 16 places of every image, are projected on 64 random directions; on each,
    the distance between the distributions is that between sorted values. It tells of colours, edges and textures, and
    not of what is in a picture as a whole. In place of a Laplacian pyramid it takes one scale, that of the images.

    As in `generative.metrics`, equal numbers are compared: of the real images one half is the reference. The figure of
    the other half is beside it: ``floor/patch_distance``.

    Args:
        image_size: Height and width of the images, in pixels, at least 7.
        seed: Fixes places, directions and halves.

    Raises:
        ValueError: The images are smaller than a patch.
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
        """Adds images.

        Args:
            images: ``(B, 3, H, W)``, floating point in [-1, 1].
            real: Whether they are of the data set; else they are generated.

        Raises:
            ValueError: The images are of another shape or type.
        """
        size = self.image_size
        if images.shape[1:] != (3, size, size) or not images.is_floating_point():
            raise ValueError(
                f"images of shape {tuple(images.shape)} and {images.dtype}: must be (B, 3, {size}, {size}) of floating"
                " point"
            )
        windows = images.float().unfold(2, SIDE, 1).unfold(3, SIDE, 1)
        across = windows.shape[3]
        patches = windows[:, :, self.places // across, self.places % across].movedim(2, 1).flatten(2)
        with torch.autocast(images.device.type, enabled=False):  # half precision moves values by more than a floor
            projected = patches @ self.directions.float()
        (self.real if real else self.generated).append(projected.flatten())  # flat: so is what no image is

    def compute(self) -> dict[str, Tensor]:
        """``patch_distance`` and ``floor/patch_distance``: lengths in the space of patches, float32 scalars.

        Raises:
            ValueError: There are too few images.
        """
        real, generated = self._images(self.real), self._images(self.generated)
        number = min(len(generated), len(real) // 2)
        if number < MIN_PICTURES:
            counts = f"{len(real)} real and {len(generated)} generated images"
            raise ValueError(f"{counts}: must be at least {2 * MIN_PICTURES} and {MIN_PICTURES}")
        reference, floor = real[:number], real[number : 2 * number]
        return {
            "patch_distance": _distance(reference, generated[:number]),
            "floor/patch_distance": _distance(reference, floor),
        }

    def _images(self, state: list[Tensor] | Tensor) -> Tensor:
        """A row for each image, in an order that depends on no batch and no process."""
        if isinstance(state, list) and not state:
            return torch.zeros(0, _PATCHES * _DIRECTIONS)
        rows = dim_zero_cat(state).view(-1, _PATCHES * _DIRECTIONS).cpu()
        # By sums over all patches: a single one is the same in many pictures, such as those of things on white.
        keys = rows.view(-1, _PATCHES, _DIRECTIONS).sum(1)[:, :8]
        order = torch.from_numpy(np.lexsort(keys.T.numpy()))
        return rows[order[torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))]]


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean over directions of the distance between two sets of equally many projections."""
    first, second = (rows.view(-1, _DIRECTIONS).sort(0).values for rows in (first, second))
    return (first - second).abs().mean()

"""The data: images of discs and one cross, and the position of the cross."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.utils.argument_checks import check_at_least

REACH = 2
"""A cross and a disc reach this many pixels to each side of their centre."""


class CrossBatch(NamedTuple):
    """A batch."""

    images: Tensor  # float32 (B, 1, H, W), 0 to 1
    positions: Tensor  # float32 (B, 2): x and y of the cross in pixels


class CrossData(DataModule):
    """Images of some discs and one cross, at random places.

    Args:
        size: Height and width of the images, in pixels.
        discs: Number of discs in each image.
        num_train: Number of training images.
        num_eval: Number of images to validate with, and of others to test with.
        batch_size: Samples in a batch, on each process.
        num_workers: Worker processes that load samples, on each process; 0 loads in the main process.
        seed: Seed of the images and of the training order.
    """

    def __init__(
        self,
        size: int = 32,
        discs: int = 3,
        num_train: int = 4000,
        num_eval: int = 500,
        batch_size: int = 50,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        # The command line prints the `ValueError` of a wrong value as one line, and exits with status 2.
        check_at_least(8, "data.", size=size)
        check_at_least(0, "data.", discs=discs)
        check_at_least(1, "data.", num_train=num_train, num_eval=num_eval)
        self.size = size
        self.discs = discs
        self.sizes = {"train": num_train, "val": num_eval, "test": num_eval}

    def setup(self, stage: str) -> None:
        """Draw the images of the three splits; each has a random generator of its own."""
        self.sets = {
            split: draw_images(number, self.size, self.discs, torch.Generator().manual_seed(3 * self.seed + index))
            for index, (split, number) in enumerate(self.sizes.items())
        }

    def train_dataloader(self) -> DataLoader[CrossBatch]:
        """Return the loader of training images: shuffled, split over processes, resumable within an epoch."""
        return self._train_loader(self.sets["train"])

    def val_dataloader(self) -> DataLoader[CrossBatch]:
        """Return the loader of validation images."""
        return self._eval_loader(self.sets["val"])

    def test_dataloader(self) -> DataLoader[CrossBatch]:
        """Return the loader of test images."""
        return self._eval_loader(self.sets["test"])


def draw_images(number: int, size: int, discs: int, generator: torch.Generator) -> TensorDataset:
    """Draw images ``(number, 1, size, size)`` of discs and one cross, and the crosses' positions ``(number, 2)``."""
    centers = torch.randint(REACH, size - REACH, (number, discs + 1, 2), generator=generator)
    pixel = torch.arange(size)
    dx = (pixel - centers[..., 0, None, None]).abs()  # (number, discs + 1, 1, size)
    dy = (pixel[:, None] - centers[..., 1, None, None]).abs()
    disc = dx**2 + dy**2 <= REACH**2
    cross = (dx == dy) & (dx <= REACH)
    crossed = cross[:, 0] & ~disc[:, 1:].any(1)  # a disc may hide a part of the cross
    images = (disc[:, 1:].any(1) | crossed).float()
    return TensorDataset(images[:, None], centers[:, 0].float())

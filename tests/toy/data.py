"""Where is the dot: images with one bright pixel, and its position."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from coordconv_apps.data.datamodule import DataModule


class ToyBatch(NamedTuple):
    """Images ``(B, 1, size, size)`` and the dots' positions ``(B, 2)`` in [-1, 1]."""

    images: Tensor
    positions: Tensor


class ToyData(DataModule):
    """Dots.

    Args:
        size: Height and width of the images in pixels.
        samples: Number of training images.
        val_samples: Number of images to validate with, and to test with.
        batch_size: Samples in a batch, on each process.
        num_workers: Worker processes that load samples.
        seed: Fixes the images.

    Raises:
        ValueError: The size is not at least 2.
    """

    def __init__(
        self,
        size: int = 8,
        samples: int = 40,
        val_samples: int = 19,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if size < 2:
            raise ValueError(f"data.size={size}: must be an integer of at least 2")
        self.size = size
        self.samples = samples
        self.val_samples = val_samples

    def setup(self, stage: str) -> None:
        if self.val_samples == 13:
            raise ValueError("data.val_samples=13: brings bad luck, any other number is allowed")
        self.train_set = self._dots(self.samples, self.seed)
        self.val_set = self._dots(self.val_samples, self.seed + 1)

    def _dots(self, count: int, seed: int) -> TensorDataset:
        places = torch.randint(0, self.size, (count, 2), generator=torch.Generator().manual_seed(seed))
        images = torch.zeros(count, 1, self.size, self.size)
        images[torch.arange(count), 0, places[:, 1], places[:, 0]] = 1
        return TensorDataset(images, places * 2.0 / (self.size - 1) - 1)

    def train_dataloader(self) -> DataLoader[ToyBatch]:
        return self._train_loader(self.train_set)

    def val_dataloader(self) -> DataLoader[ToyBatch]:
        return self._eval_loader(self.val_set)

    def test_dataloader(self) -> DataLoader[ToyBatch]:
        return self._eval_loader(self.val_set)

    def predict_dataloader(self) -> DataLoader[ToyBatch]:
        return self._eval_loader(self.val_set)

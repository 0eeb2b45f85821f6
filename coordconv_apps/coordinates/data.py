"""Data module of Not-so-Clevr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coordconv_apps.coordinates.not_so_clevr import Centers, PositionSplit, draw_pairs, split_centers
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.utils.argument_checks import check_at_least

SET_PREFIXES = ("", "train_")
"""Prefixes of the names of the metrics of both evaluated sets, test and train, in the order of their loaders."""


class NotSoClevrBatch(NamedTuple):
    """Samples of Not-so-Clevr; `coordconv_apps.coordinates.not_so_clevr` renders their images."""

    centers: Tensor  # int64 (B, objects, 2): x and y of each square's centre, in pixels


class CenterDataset(Dataset[NotSoClevrBatch]):
    """Centres ``(n, objects, 2)`` by index, in whole batches."""

    def __init__(self, centers: Tensor) -> None:
        self.centers = centers

    def __len__(self) -> int:
        return len(self.centers)

    def __getitems__(self, indices: Sequence[int]) -> NotSoClevrBatch:
        """Return a batch of samples; the loader calls this once per batch."""
        return NotSoClevrBatch(self.centers[torch.as_tensor(indices)])


class NotSoClevrData(DataModule):
    """Not-so-Clevr: white squares on a black canvas at every place where one fits (Liu et al., 2018, section 2).

    Both the training and the test set are evaluated, during and after training: the tasks are about the gap between
    them. The best checkpoint is chosen by the training set alone.

    Args:
        split: "uniform": each centre goes to the test set with probability ``test_fraction``. "quadrant": the test
            set has the centres whose x and y are both above half of the canvas.
        canvas_size: Height and width of the canvas, in pixels.
        square_size: Side of a square, in pixels.
        two_objects: Whether each sample has two squares, at random centres of its set; for CoordinateRendering.
        pairs: With two_objects, number of training samples; the number of test samples is a quarter of it.
        test_fraction: With split=uniform, probability that a centre goes to the test set, in (0, 1).
        batch_size: Samples in a training batch, on each process.
        eval_batch_size: Samples in an evaluation batch, on each process.
        seed: Seed of the split, the pairs and the order of training.

    Raises:
        ValueError: An argument is out of its range, or a set would be empty.
    """

    def __init__(
        self,
        split: PositionSplit = "uniform",
        canvas_size: int = 64,
        square_size: int = 9,
        two_objects: bool = False,
        pairs: int = 10_000,
        test_fraction: float = 0.25,
        batch_size: int = 16,
        eval_batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        check_at_least(1, "data.", eval_batch_size=eval_batch_size)
        check_at_least(4, "data.", pairs=pairs)
        self.split: PositionSplit = split
        self.canvas_size = canvas_size
        self.square_size = square_size
        self.objects = 2 if two_objects else 1
        self.eval_batch_size = eval_batch_size
        centers = split_centers(split, canvas_size, square_size, test_fraction, seed)
        if two_objects:
            centers = Centers(draw_pairs(centers.train, pairs, seed), draw_pairs(centers.test, pairs // 4, seed + 1))
        self.centers = centers

    def train_dataloader(self) -> DataLoader[NotSoClevrBatch]:
        """Return the loader of the training set."""
        return self._train_loader(CenterDataset(self.centers.train), identity_collate)

    def val_dataloader(self) -> list[DataLoader[NotSoClevrBatch]]:
        """Return the loaders of both sets, test and train."""
        return [
            self._eval_loader(CenterDataset(centers), identity_collate, shuffled=True, batch_size=self.eval_batch_size)
            for centers in (self.centers.test, self.centers.train)
        ]

    def test_dataloader(self) -> list[DataLoader[NotSoClevrBatch]]:
        """Return the loaders of both sets, test and train."""
        return self.val_dataloader()

    def predict_dataloader(self) -> NoReturn:
        """Raise `ValueError`: all samples have a known answer."""
        raise ValueError("predict: every sample has a known answer; test evaluates all of them and draws pictures")

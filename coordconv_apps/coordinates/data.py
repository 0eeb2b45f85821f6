"""Not-so-Clevr as a data module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coordconv_apps.coordinates.squares import Centers, Split, draw_pairs, split_centers
from coordconv_apps.data.collate import identity_collate
from coordconv_apps.data.datamodule import DataModule


class SquareBatch(NamedTuple):
    """Samples of Not-so-Clevr; `coordconv_apps.coordinates.squares` makes the images of them.

    Attributes:
        centers: int64 ``(B, objects, 2)``: x and y of each square's centre, in pixels.
    """

    centers: Tensor


class SquareDataset(Dataset[SquareBatch]):
    """Centres as batches.

    Args:
        centers: ``(n, objects, 2)``.
    """

    def __init__(self, centers: Tensor) -> None:
        self.centers = centers

    def __len__(self) -> int:
        return len(self.centers)

    def __getitem__(self, index: int) -> SquareBatch:
        """Return a batch of one sample."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SquareBatch:
        """Return a batch of samples. The loader calls this once for a batch."""
        return SquareBatch(self.centers[torch.as_tensor(indices)])


class SquareData(DataModule):
    """Not-so-Clevr: white squares on a black canvas at every place where one fits (Liu et al., 2018, section 2).

    There are two sets, to train and to test on. Both are evaluated, during the training and after it: how far apart
    their figures are is what the tasks are about. The best checkpoint is chosen by the training set alone.

    Args:
        split: "uniform": each centre goes to the test set with probability ``test_fraction``. "quadrant": the test
            set is where both x and y are above half of the canvas.
        canvas_size: Height and width of the canvas, in pixels.
        square_size: Side of a square, in pixels.
        two_objects: Whether each sample has two squares, drawn at random from the centres of its set, for
            model.task=rendering.
        pairs: With two_objects, number of samples to train on; a quarter as many are there to test on.
        test_fraction: Probability of the test set, in (0, 1), with split=uniform.
        batch_size: Samples in a batch to train on, on each process.
        eval_batch_size: Samples in a batch to evaluate, on each process.
        seed: Fixes the split, the pairs and the order of training.

    Raises:
        ValueError: An argument is out of its range, or a set would be empty.
    """

    def __init__(
        self,
        split: Split = "uniform",
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
        for name, value, least in (("eval_batch_size", eval_batch_size, 1), ("pairs", pairs, 4)):
            if value < least:
                raise ValueError(f"data.{name}={value}: must be an integer of at least {least}")
        self.split: Split = split
        self.canvas_size = canvas_size
        self.square_size = square_size
        self.objects = 2 if two_objects else 1
        self.eval_batch_size = eval_batch_size
        centers = split_centers(split, canvas_size, square_size, test_fraction, seed)
        if two_objects:
            centers = Centers(draw_pairs(centers.train, pairs, seed), draw_pairs(centers.test, pairs // 4, seed + 1))
        self.centers = centers

    def train_dataloader(self) -> DataLoader[SquareBatch]:
        """Make the loader of the training set."""
        return self._loader(SquareDataset(self.centers.train), train=True, collate_fn=identity_collate)

    def val_dataloader(self) -> list[DataLoader[SquareBatch]]:
        """Make the loaders of both sets, test and train, to evaluate."""
        return [self._eval_loader(self.centers.test), self._eval_loader(self.centers.train)]

    def test_dataloader(self) -> list[DataLoader[SquareBatch]]:
        """Make the loaders of both sets, test and train, to evaluate."""
        return self.val_dataloader()

    def predict_dataloader(self) -> NoReturn:
        """Refuse: all samples that there are have a truth to compare with.

        Raises:
            ValueError: Always.
        """
        raise ValueError("predict: there are no samples here without a known answer; test evaluates and draws them all")

    def _eval_loader(self, centers: Tensor) -> DataLoader[SquareBatch]:
        dataset = SquareDataset(centers)
        return self._loader(dataset, train=False, collate_fn=identity_collate, batch_size=self.eval_batch_size)

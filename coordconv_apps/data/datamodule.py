"""Base class of all data modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from coordconv_apps.data.image_decoding import read_image
from coordconv_apps.data.image_files import ImageFiles, OnBadImage, open_images
from coordconv_apps.data.loaders import SeededSamples, SizedDataset, TrainBatches, TrainLoader
from coordconv_apps.utils.argument_checks import check_at_least

Collate = Callable[[list[Any]], Any]

MAX_WORKERS = max(128, os.cpu_count() or 1)
"""Upper limit for worker processes of a loader: more would only fill the machine."""


class DataModule(LightningDataModule):
    """Data module with resumable, sharded loaders.

    A subclass builds its datasets in ``setup(stage)``, and returns ``self._train_loader(dataset)`` from
    ``train_dataloader`` and ``self._eval_loader(dataset)`` from the other loader methods.

    Args:
        batch_size: Samples in a batch, on each process.
        num_workers: Worker processes that load samples, on each process; 0 loads in the main process.
        seed: Seed for the order of the samples, and for all that a subclass draws at random.

    Attributes:
        predict_files: The images to predict on, see `find_predict_images`; None before.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> class Numbers(DataModule):
        ...     def train_dataloader(self):
        ...         return self._train_loader(torch.arange(10.0))
        >>> [len(batch) for batch in Numbers(batch_size=4).train_dataloader()]
        [4, 4, 2]
    """

    def __init__(self, batch_size: int = 32, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        check_at_least(1, "data.", batch_size=batch_size)
        check_at_least(0, "data.", num_workers=num_workers, seed=seed)
        if num_workers > MAX_WORKERS:
            raise ValueError(f"data.num_workers={num_workers}: must be at most {MAX_WORKERS} on this machine")
        if seed >= 2**63:
            raise ValueError(f"data.seed={seed}: must be below 2**63, as torch's generators need it")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.predict_files: ImageFiles | None = None
        self._left_out: set[str] = set()  # paths of images that could not be opened when they were listed

    def _train_loader(
        self,
        dataset: SizedDataset,
        collate_fn: Collate | None = None,
        *,
        random_samples: bool = False,
        drop_last: bool = False,
        batch_size: int | None = None,
        groups: Tensor | None = None,
    ) -> TrainLoader:
        """Return a loader for training: an interrupted run resumes with the batches that it has not seen.

        The order of samples depends on ``seed`` and the epoch alone, and every process has the same number of batches.

        Args:
            dataset: Samples by index.
            collate_fn: Makes a batch of a list of samples; torch's default if not given.
            random_samples: Whether ``dataset`` draws random numbers (augmentation). It then draws the same ones for the
                same seed, epoch and index, whatever the number of workers and processes.
            drop_last: Whether to leave out a last batch that is smaller than the others.
            batch_size: Samples in a batch, on each process; that of the data module if not given.
            groups: int64 ``(N,)``, a group of each sample; batches then have samples of one group as far as possible.
        """
        rank, world_size = self._processes()
        batches = TrainBatches(
            len(dataset),
            self.batch_size if batch_size is None else batch_size,
            self.seed,
            rank,
            world_size,
            drop_last=drop_last,
            same_order=bool(getattr(self.trainer, "overfit_batches", 0)),  # the same few in every epoch
            seeded=random_samples,
            groups=groups,
        )
        samples: SizedDataset = SeededSamples(dataset) if random_samples else dataset
        return TrainLoader(samples, batches, **self._loader_options(collate_fn))

    def _eval_loader(
        self,
        dataset: SizedDataset,
        collate_fn: Collate | None = None,
        *,
        shuffled: bool = False,
        batch_size: int | None = None,
    ) -> DataLoader[Any]:
        """Return a loader for evaluation and prediction: each sample comes once, on one process only.

        Args:
            dataset: Samples by index.
            collate_fn: Makes a batch of a list of samples; torch's default if not given.
            shuffled: Whether samples come in a random order, the same in every run, so that a part of the batches
                (``trainer.limit_val_batches``) is a fair sample of ``dataset``.
            batch_size: Samples in a batch, on each process; that of the data module if not given.
        """
        rank, world_size = self._processes()
        if 0 < len(dataset) < world_size:
            # Lightning skips an evaluation without samples, and the other processes would wait forever.
            raise ValueError(
                f"trainer.devices: {world_size} processes for {len(dataset)} samples to evaluate or predict:"
                " must be at most the number of samples"
            )
        order: Sequence[int] = range(len(dataset))
        if shuffled:
            order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
        return DataLoader(
            dataset,  # type: ignore[arg-type]  # torch asks for its Dataset class, and uses len and [] only
            batch_size=self.batch_size if batch_size is None else batch_size,
            sampler=order[rank::world_size],
            **self._loader_options(collate_fn),
        )

    def _loader_options(self, collate_fn: Collate | None) -> dict[str, Any]:
        """Return the arguments that all loaders have."""
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate_fn,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            "persistent_workers": self.num_workers > 0,
            # Without one, each iteration over a loader draws from the global generator.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def print_once(self, line: str) -> None:
        """Print a line, unless it is empty, on the first process."""
        if line and (self.trainer is None or self.trainer.is_global_zero):
            print(line)

    def find_predict_images(
        self, place: Path | None, on_bad_image: OnBadImage, read_file: Callable[[Path], Tensor] = read_image
    ) -> None:
        """Set ``predict_files`` to the images that ``data.predict_images`` names and print what is left out.

        Raises:
            FileNotFoundError: There is no such file or folder.
            ValueError: No image is named or readable, or some are unreadable and on_bad_image is "error".
        """
        argument = "data.predict_images"
        if place is None:
            raise ValueError(f"{argument}=null: predict needs an image, or a folder of images")
        self.predict_files, found = open_images(place, argument, on_bad_image, read_file)
        self._left_out |= found.left_out
        self.print_once(found.message)

    def skipped_images(self) -> set[str] | None:
        """Return the paths of the images that this process and its workers could not read so far.

        None if the data have no image files, or all of them are needed. A subclass that reads other images than those
        to predict on adds them.
        """
        return None if self.predict_files is None else self._left_out | self.predict_files.bad

    def _processes(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

"""Deterministic loaders and samplers that resume within an epoch and share samples among processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.seeds import mix_seeds


class SizedDataset(Protocol):
    """A map-style dataset with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...  # noqa: ANN401  # whatever a sample is


def identity_collate(batch: object) -> object:
    """Return ``batch``: the dataset's ``__getitems__`` has made a batch already."""
    return batch


class TrainBatches(Sampler[list[Any]]):
    """One epoch's batches of shuffled indices, for one process.

    The epoch's order is a permutation that depends on ``seed`` and the epoch. It is cut into steps of
    ``batch_size * world_size`` samples, and each step is divided among the processes. So N processes with batches of B
    see the same samples in the same step as one process with batches of N * B, and all make the same number of steps.
    Only a last step of fewer samples than processes is filled up, with samples from the beginning of the order.

    Args:
        length: Number of samples in all.
        batch_size: Samples in a batch on each process.
        seed: Fixes the order.
        rank: This process, in ``[0, world_size)``.
        world_size: Number of processes.
        drop_last: Whether to leave out a last step that is not full.
        same_order: Whether every epoch has the order, and the seeds, of the first.
        seeded: Whether to yield pairs ``(index, seed of the sample)`` for `SeededSamples` instead of indices.
        groups: Group of each sample, see `batch_by_group`; all samples of a step are then in one group, but for the
            last steps.

    Raises:
        ValueError: There is no batch.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        drop_last: bool = False,
        same_order: bool = False,
        seeded: bool = False,
        groups: Tensor | None = None,
    ) -> None:
        self.length = length
        self.step_size = batch_size * world_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.same_order = same_order
        self.seeded = seeded
        self.groups = groups
        self.epoch = 0  # the epoch whose order comes next
        self.start = 0  # the step of that epoch to start at
        if len(self) == 0:
            needed = self.step_size if drop_last else 1
            raise ValueError(f"data: {length} training samples are too few, at least {needed} are needed")

    @property
    def sampler(self) -> TrainBatches:
        """This object: Lightning looks here for ``set_epoch`` in a loader with a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.step_size if self.drop_last else -(-self.length // self.step_size)

    def share(self, step: int) -> float:
        """Return the number of samples of this process in a step, as a multiple of the mean over the processes.

        It differs from 1 only in a last step that is not full.

        >>> ranks = [TrainBatches(11, batch_size=4, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
        >>> [batches.share(step) for step in (0, 1) for batches in ranks]  # 4 and 4 samples, then 2 and 1
        [1.0, 1.0, 1.3333333333333333, 0.6666666666666666]
        """
        samples = max(min(self.length - step * self.step_size, self.step_size), self.world_size)
        return len(range(self.rank, samples, self.world_size)) * self.world_size / samples

    def __iter__(self) -> Iterator[list[Any]]:
        epoch = 0 if self.same_order else self.epoch
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, epoch))
        order = torch.randperm(self.length, generator=generator)
        if self.groups is not None:
            order = batch_by_group(order, self.groups, self.step_size)
        for step in range(self.start, len(self)):
            samples = order[step * self.step_size : (step + 1) * self.step_size]
            if len(samples) < self.world_size:
                samples = torch.cat([samples, order.repeat(self.world_size)])[: self.world_size]
            indices = samples[self.rank :: self.world_size].tolist()
            yield [(i, mix_seeds(self.seed, epoch, i)) for i in indices] if self.seeded else indices


def batch_by_group(order: Tensor, groups: Tensor, size: int) -> Tensor:
    """Rearrange samples so that every ``size`` consecutive ones are in one group, as far as possible.

    A run of ``size`` samples stands where the order has the last of them. The samples that are left over at the end,
    fewer than ``size`` of each group, follow group by group.

    Args:
        order: int64 ``(N,)``, the order of the samples.
        groups: int64 ``(N,)``, the group of each sample.
        size: Length of a run.

    Returns:
        int64 ``(N,)``, the same samples in another order.

    Example:
        >>> batch_by_group(torch.tensor([4, 0, 3, 2, 1]), torch.tensor([0, 1, 0, 0, 1]), 2)
        tensor([0, 3, 4, 1, 2])
    """
    complete: list[int] = []
    waiting: dict[int, list[int]] = {}
    for sample, group in zip(order.tolist(), groups[order].tolist(), strict=True):
        own = waiting.setdefault(group, [])
        own.append(sample)
        if len(own) == size:
            complete += own
            own.clear()
    left = [sample for group in sorted(waiting) for sample in waiting[group]]
    return torch.tensor(complete + left, dtype=order.dtype)


class TrainLoader(DataLoader[Any]):
    """Training loader that resumes within an epoch: Lightning stores its state in the checkpoint."""

    def __init__(self, dataset: SizedDataset, batches: TrainBatches, **options: Any) -> None:  # noqa: ANN401  # torch's
        super().__init__(dataset, batch_sampler=batches, **options)  # type: ignore[arg-type]  # as in DataModule._eval_loader
        self.batches = batches
        self._epoch = 0  # the epoch that was iterated over last, and how many of its batches were handed out
        self._seen = 0
        self._restored: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares its private iterator class
        # A generator: this runs at the first batch, when Lightning has set the epoch, and not when it asks for it.
        restored, self._restored = self._restored, None
        self.batches.start = self._seen = 0
        if restored is not None and restored["epoch"] == self.batches.epoch and restored["seen"]:
            self._check(restored)
            self.batches.start = self._seen = restored["seen"]
        self._epoch = self.batches.epoch
        assert self.generator is not None
        self.generator.manual_seed(mix_seeds(self.batches.seed, self.batches.epoch, self.batches.rank))
        for batch in super().__iter__():
            self._seen += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches of the epoch that were handed out, and the settings that they depend on."""
        return {
            "epoch": self._epoch,
            "seen": self._seen,
            "samples": self.batches.length,
            "step_size": self.batches.step_size,
            "seed": self.batches.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at ``state``, if the next epoch is the one in which it was saved.

        That epoch raises a `UserError` if the number of samples, the samples in a step or the seed has changed: these
        may change only after the end of an epoch.
        """
        self._restored = state

    def _check(self, state: dict[str, int]) -> None:
        own = self.state_dict()
        names = {"samples": "training samples", "step_size": "batch_size times processes", "seed": "data.seed"}
        for key, name in names.items():
            if own[key] != state[key]:
                raise UserError(
                    f"data: {name}={own[key]}: this checkpoint was saved mid-epoch and needs {name}={state[key]};"
                    " to change it, resume from a checkpoint saved at an epoch's end"
                )


class SeededSamples:
    """A dataset whose random numbers depend on the seed that comes with each index, and on nothing else.

    ``dataset`` draws them from the global generators of Python, NumPy or torch.
    """

    def __init__(self, dataset: SizedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401  # whatever a sample is
        """Return a sample by index and seed."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Any]:
        """Return a batch of samples, each by index and seed; the loader calls this once for a batch."""
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            return [self._draw(index, seed) for index, seed in keys]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])

    def _draw(self, index: int, seed: int) -> Any:  # noqa: ANN401  # whatever a sample is
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        return self.dataset[index]

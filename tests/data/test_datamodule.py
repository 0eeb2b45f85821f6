"""Loaders: complete, deterministic, resumable, and the same samples on any number of processes."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.downloads import data_root
from coordconv_apps.data.loaders import SeededSamples, TrainBatches, TrainLoader
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.seeds import mix_seeds

SIZES = list(itertools.product([1, 5, 12, 13, 23], [1, 2, 5], [1, 2, 3]))


class Numbers:
    """The numbers from 0 on."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> int:
        return index


class Noise(Numbers):
    """Each sample draws from all three global generators."""

    def __getitem__(self, index: int, /) -> tuple[int, float, float, float]:  # type: ignore[override]  # not a number
        return index, random.random(), float(np.random.rand()), torch.rand(()).item()


@pytest.mark.parametrize(("length", "batch_size", "world_size"), SIZES)
def test_an_epoch_holds_each_sample_once(length: int, batch_size: int, world_size: int) -> None:
    ranks = [list(TrainBatches(length, batch_size, 7, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(0 < len(batch) <= batch_size for batches in ranks for batch in batches)
    counts = Counter(index for batches in ranks for batch in batches for index in batch)
    last_step = length % (batch_size * world_size)
    filled_up = world_size - last_step if 0 < last_step < world_size else 0
    assert set(counts) == set(range(length))
    assert sum(counts.values()) == length + filled_up


@pytest.mark.parametrize("epoch", [0, 3])
def test_processes_share_the_steps_of_one(epoch: int) -> None:
    whole = TrainBatches(21, 6, 1)
    ranks = [TrainBatches(21, 2, 1, rank, 3) for rank in range(3)]
    for batches in [whole, *ranks]:
        batches.set_epoch(epoch)
    for step, *shares in zip(whole, *ranks, strict=True):
        assert sorted(step) == sorted(itertools.chain(*shares))


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[Any]:
        torch.manual_seed(random.randrange(1000))
        batches = TrainBatches(50, 4, seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 2) == order(1, 2)
    assert len({str(order(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25


def test_drop_last_leaves_out_the_smaller_batch() -> None:
    assert [len(batch) for batch in TrainBatches(13, 5, 0, drop_last=True)] == [5, 5]
    assert len(TrainBatches(13, 5, 0, drop_last=True)) == 2


@pytest.mark.parametrize(("length", "drop_last", "needed"), [(0, False, 1), (4, True, 5)])
def test_too_few_samples_are_refused(length: int, drop_last: bool, needed: int) -> None:
    with pytest.raises(ValueError, match=f"{length} training samples are too few, at least {needed} are needed"):
        TrainBatches(length, 5, 0, drop_last=drop_last)


def loader(length: int = 23, batch_size: int = 5, seed: int = 0, **options: Any) -> TrainLoader:  # noqa: ANN401  # torch's
    generator = torch.Generator()
    return TrainLoader(Numbers(length), TrainBatches(length, batch_size, seed), generator=generator, **options)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("seen", [0, 1, 4])
def test_a_loader_resumes_where_its_state_was_saved(seen: int, num_workers: int) -> None:
    first, second = loader(num_workers=num_workers), loader(num_workers=num_workers)
    first.batches.set_epoch(2)
    batches = iter(first)
    before = [next(batches).tolist() for _ in range(seen)]  # with workers, more are under way
    second.load_state_dict(first.state_dict() | {"epoch": 2})
    second.batches.set_epoch(2)
    after = [batch.tolist() for batch in second]
    whole = loader()
    whole.batches.set_epoch(2)
    assert before + after == [batch.tolist() for batch in whole]
    second.batches.set_epoch(3)
    assert sorted(itertools.chain(*[batch.tolist() for batch in second])) == list(range(23))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"length": 24}, "training samples=24"),
        ({"batch_size": 4}, "batch_size times processes=4"),
        ({"seed": 1}, "data.seed=1"),
    ],
)
def test_a_state_of_other_data_is_refused(other: dict[str, int], message: str) -> None:
    for batches in (1, 5):  # in the middle of the epoch; all of it, before Lightning has begun the next one
        first, second = loader(), loader(**other)
        list(itertools.islice(iter(first), batches))
        second.load_state_dict(first.state_dict())
        with pytest.raises(UserError, match=message):
            next(iter(second))


def test_a_state_of_other_data_is_fine_in_another_epoch() -> None:
    first, second = loader(), loader(length=50, batch_size=3)
    list(first)
    second.load_state_dict(first.state_dict())
    second.batches.set_epoch(1)
    assert len(list(second)) == 17


def test_every_epoch_is_the_same_where_that_is_asked_for() -> None:
    batches = TrainBatches(23, 5, 0, same_order=True, seeded=True)
    first = list(batches)
    batches.set_epoch(3)
    assert list(batches) == first


class Module(DataModule):
    """Loaders of noise."""

    def train_dataloader(self) -> TrainLoader:
        return self._train_loader(Noise(20), random_samples=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._eval_loader(Noise(20))


def test_loaders_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    for loader in (Module.train_dataloader, Module.val_dataloader):
        assert len(list(loader(Module(batch_size=4, num_workers=1)))) == 5
    assert torch.equal(torch.get_rng_state(), before)


def test_random_samples_depend_on_seed_epoch_and_index_only() -> None:
    def samples(seed: int, epoch: int, **options: int) -> dict[int, tuple[float, ...]]:
        made = Module(seed=seed, **options).train_dataloader()
        made.batches.set_epoch(epoch)
        return {int(i): tuple(map(float, rest)) for batch in made for i, *rest in zip(*batch, strict=True)}

    random.seed(random.randrange(1000))
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    expected = samples(3, 1, batch_size=4)
    assert len({x for sample in expected.values() for x in sample}) == 60
    assert samples(3, 1, batch_size=7) == expected
    assert samples(3, 1, batch_size=4, num_workers=2) == expected
    assert samples(3, 2, batch_size=4) != expected
    assert samples(4, 1, batch_size=4) != expected
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_the_first_process_alone_prints(capsys: pytest.CaptureFixture[str]) -> None:
    module = Module()
    module.print_once("without a trainer")
    for is_first in (True, False):
        module.trainer = SimpleNamespace(is_global_zero=is_first)  # type: ignore[assignment]  # all that it asks
        module.print_once(f"the first: {is_first}")
        module.print_once("")
    assert capsys.readouterr().out == "without a trainer\nthe first: True\n"


class Gaussians(Numbers):
    """Each sample draws one number that the generators make in pairs: they keep the other one for the next call."""

    def __getitem__(self, index: int, /) -> tuple[int, float, float, float]:  # type: ignore[override]  # as above
        return index, random.gauss(0, 1), float(np.random.randn()), torch.randn(()).item()


def test_seeded_samples_do_not_depend_on_the_others_of_their_batch() -> None:
    samples, keys = SeededSamples(Gaussians(4)), [(2, 11), (0, 2**63 - 1), (3, 11), (1, 0)]
    batch = samples.__getitems__(keys)
    assert batch == [samples[key] for key in keys]
    assert batch[0][1:] == batch[2][1:]
    for index, seed in keys:
        expected = random.Random(seed).gauss(0, 1), np.random.RandomState(seed % 2**32).randn()
        alone = torch.randn((), generator=torch.Generator().manual_seed(seed)).item()
        assert samples[index, seed] == (index, *expected, alone)


def test_an_error_in_a_batch_leaves_the_generators_as_they_were() -> None:
    class Broken(Gaussians):
        def __getitem__(self, index: int, /) -> tuple[int, float, float, float]:  # type: ignore[override]  # as above
            sample = super().__getitem__(index)
            if index == 1:
                raise KeyError(index)
            return sample

    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    with pytest.raises(KeyError):
        SeededSamples(Broken(2)).__getitems__([(0, 5), (1, 6)])
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_mixed_seeds_are_far_apart() -> None:
    seeds = {mix_seeds(a, b) for a in range(200) for b in range(200)}
    assert len(seeds) == 40_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seeds(0, 1) != mix_seeds(1, 0)
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.02


def test_every_process_must_have_something_to_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataModule, "_processes", lambda self: (3, 4))
    assert len(DataModule(2)._train_loader(Numbers(3))) == 1, "samples are filled up"
    with pytest.raises(ValueError, match=r"^trainer\.devices: 4 processes for 3 samples to evaluate or predict"):
        DataModule(2)._eval_loader(Numbers(3))


@pytest.mark.parametrize(("length", "world_size"), [(0, 1), (0, 2), (1, 1), (3, 3), (12, 3), (13, 2), (13, 3)])
def test_evaluation_has_each_sample_once(monkeypatch: pytest.MonkeyPatch, length: int, world_size: int) -> None:
    shards = []
    for rank in range(world_size):
        monkeypatch.setattr(DataModule, "_processes", lambda self, rank=rank: (rank, world_size))
        loader = DataModule(4)._eval_loader(Numbers(length))
        batches = [batch.tolist() for batch in loader]
        assert len(loader) == len(batches)
        shards.append(list(itertools.chain(*batches)))
    assert sorted(itertools.chain(*shards)) == list(range(length))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_evaluation_is_in_order() -> None:
    (indices, *_), *_ = Module(batch_size=20).val_dataloader()
    assert indices.tolist() == list(range(20))


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("batch_size", 0, "an integer of at least 1"),
        ("batch_size", None, "an integer of at least 1"),
        ("num_workers", -1, "an integer of at least 0"),
        ("num_workers", None, "an integer of at least 0"),
        ("seed", -1, "an integer of at least 0"),
        ("seed", None, "an integer of at least 0"),
        ("seed", 2**64, r"below 2\*\*63"),
    ],
)
def test_invalid_arguments_are_refused(argument: str, value: int | None, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"data.{argument}={value}: must be {allowed}"):
        DataModule(**{argument: value})  # type: ignore[arg-type]  # None, too


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_pinned_memory_is_for_cuda_only(device: str, pinned: bool) -> None:
    module = Module()
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)
    module.trainer = trainer  # type: ignore[assignment]  # all that it asks
    assert module.train_dataloader().pin_memory is pinned


def test_data_root_is_the_argument_then_the_variable_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COORDCONV_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("COORDCONV_DATA", "/from/environment")
    assert data_root() == Path("/from/environment")
    assert data_root("/given") == Path("/given")
    assert data_root("~/x") == Path.home() / "x"

"""Loaders: what is in a batch, every sample once, the order of training, pairs of each set."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from coordconv_apps.coordinates.data import NotSoClevrBatch, NotSoClevrData
from coordconv_apps.coordinates.not_so_clevr import split_centers
from coordconv_apps.data.loaders import TrainLoader

SMALL: dict[str, Any] = {"canvas_size": 12, "square_size": 3}


def everything(loader: DataLoader[NotSoClevrBatch]) -> Tensor:
    return torch.cat([batch.centers for batch in loader])


def as_list(centers: Tensor) -> list[list[int]]:
    return sorted(centers.flatten(1).tolist())


def epochs(data: NotSoClevrData, count: int = 2) -> list[Tensor]:
    """What the training sees, epoch by epoch."""
    loader = data.train_dataloader()
    assert isinstance(loader, TrainLoader)
    seen = []
    for epoch in range(count):
        loader.batches.set_epoch(epoch)
        seen.append(everything(loader))
    return seen


@pytest.mark.parametrize("split", ["uniform", "quadrant"])
def test_data_are_those_of_the_split(split: Any) -> None:  # noqa: ANN401  # parametrised
    data = NotSoClevrData(split=split, seed=3)
    train, test = split_centers(split, 64, 9, 0.25, 3)
    assert data.objects == 1
    assert torch.equal(data.centers.train, train)
    assert torch.equal(data.centers.test, test)


def test_batches_have_the_sizes_asked_for() -> None:
    data = NotSoClevrData(
        "quadrant", **SMALL, batch_size=7, eval_batch_size=5
    )  # 10 * 10 centres, 4 * 4 of them to test
    for loader, sizes in (
        (data.train_dataloader(), [7] * 12),
        (data.val_dataloader()[0], [5, 5, 5, 1]),
        (data.val_dataloader()[1], [5] * 16 + [4]),
    ):
        batches = list(loader)
        assert [len(batch.centers) for batch in batches] == sizes
        for batch in batches:
            assert isinstance(batch, NotSoClevrBatch)
            assert batch.centers.dtype == torch.int64
            assert batch.centers.shape[1:] == (1, 2)


def test_every_sample_comes_once_in_an_epoch() -> None:
    data = NotSoClevrData("uniform", **SMALL, batch_size=7)
    for seen in epochs(data):
        assert not torch.equal(seen, data.centers.train), "shuffled"
        assert as_list(seen) == as_list(data.centers.train)


def test_both_sets_are_evaluated_in_a_fixed_random_order_test_set_first() -> None:
    data = NotSoClevrData("uniform", **SMALL, eval_batch_size=7)
    for loaders in (data.val_dataloader(), data.test_dataloader()):
        for found, centers in zip(map(everything, loaders), (data.centers.test, data.centers.train), strict=True):
            order = torch.randperm(len(centers), generator=torch.Generator().manual_seed(0))
            assert torch.equal(found, centers[order])
            assert not torch.equal(found, centers)


def test_the_seed_fixes_the_order_of_training() -> None:
    one, same, other = (epochs(NotSoClevrData("quadrant", **SMALL, seed=seed)) for seed in (0, 0, 1))
    for first, second in zip(one, same, strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(one[0], one[1]), "another order in each epoch"
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize("split", ["uniform", "quadrant"])
def test_pairs_stay_within_their_set(split: Any) -> None:  # noqa: ANN401  # parametrised
    data = NotSoClevrData(split, **SMALL, two_objects=True, pairs=403, seed=2)
    singles = split_centers(split, 12, 3, 0.25, 2)
    assert data.objects == 2
    assert data.centers.train.shape == (403, 2, 2)
    assert data.centers.test.shape == (100, 2, 2)
    for pairs, allowed in zip(data.centers, singles, strict=True):
        assert {tuple(center) for center in pairs.flatten(0, 1).tolist()} <= {
            tuple(center) for center in allowed[:, 0].tolist()
        }
    again = NotSoClevrData(split, **SMALL, two_objects=True, pairs=403, seed=2)
    other = NotSoClevrData(split, **SMALL, two_objects=True, pairs=403, seed=3)
    assert torch.equal(data.centers.train, again.centers.train)
    assert torch.equal(data.centers.test, again.centers.test)
    assert not torch.equal(data.centers.train, other.centers.train)
    (seen,) = epochs(data, 1)
    assert as_list(seen) == as_list(data.centers.train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eval_batch_size": 0}, r"data\.eval_batch_size=0: must be an integer of at least 1"),
        ({"batch_size": 0}, r"data\.batch_size=0: must be an integer of at least 1"),
        ({"pairs": 3}, r"data\.pairs=3: must be an integer of at least 4"),
    ],
)
def test_impossible_values_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        NotSoClevrData(**arguments)
    assert "\n" not in str(error.value)

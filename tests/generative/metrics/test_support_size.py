"""Support size against a count of equal pairs."""

import itertools

import pytest
import torch

from generative.metrics import support_size
from tests.generative.metrics.point_clouds import generator, normal


def test_support_size_equals_a_count_of_pairs() -> None:
    points = torch.randint(4, (60, 4), generator=generator()).double()
    points += 0.3 * torch.randint(2, (60, 4), generator=generator(1)).double()
    kinds = torch.randint(2, (60, 2), generator=generator(2))
    same = sum(
        bool(((points[i] - points[j]).abs() <= 0.5).all() and (kinds[i] == kinds[j]).all())
        for i, j in itertools.combinations(range(60), 2)
    )
    assert same > 0
    assert support_size(points, kinds) == pytest.approx(60 * 59 / 2 / same)


def test_support_size_finds_the_number_of_images_drawn_from() -> None:
    places = 100 * normal(50, 4)
    drawn = torch.randint(50, (2000,), generator=generator())
    kinds = torch.zeros(2000, 2, dtype=torch.int64)
    assert support_size(places[drawn], kinds) == pytest.approx(50, rel=0.05)
    assert support_size(places[:1].repeat(30, 1), kinds[:30]) == 1
    assert support_size(places, kinds[:50]) == 50 * 49 / 2, "no pair: the most that 50 can tell"
    assert [support_size(places[:n], kinds[:n]) for n in (0, 1)] == [0, 1]

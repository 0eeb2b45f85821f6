"""Estimates of the dimension of point clouds whose dimension is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from generative.metrics import intrinsic_dimension, local_dimension
from generative.two_shapes import draw_scenes
from tests.generative.metrics.point_clouds import generator, normal


def data(number: int, image_size: int, radius: int, seed: int = 0) -> Tensor:
    return draw_scenes(number, image_size, radius, generator(seed)).centers[:, 0].double()


def ring(number: int, image_size: int, seed: int = 0) -> Tensor:
    angle = 2 * math.pi * torch.rand(number, generator=generator(seed), dtype=torch.float64)
    return (image_size - 1) / 2 + 0.35 * image_size * torch.stack([angle.cos(), angle.sin()], 1)


def line(number: int, image_size: int) -> Tensor:
    along = 0.7 * image_size * (torch.rand(number, generator=generator(), dtype=torch.float64) - 0.5)
    return (image_size - 1) / 2 + torch.stack([0.9 * along, 0.4 * along], 1)


@pytest.mark.parametrize(("image_size", "radius", "number"), [(64, 10, 250), (64, 10, 5000), (32, 5, 1000)])
def test_the_data_has_two_dimensions(image_size: int, radius: int, number: int) -> None:
    seeds = range(3)
    drawn = [data(number, image_size, radius, seed) for seed in seeds]
    drawn += [points + torch.rand(points.shape, generator=generator()) - 0.5 for points in drawn]
    values = [intrinsic_dimension(points) for points in drawn]
    assert sum(values) / len(values) == pytest.approx(2, abs=0.1)
    assert values == pytest.approx([2] * len(values), abs=0.2)
    local = [local_dimension(points, image_size) for points in drawn]
    # Of a few points that are spread evenly, some directions always seem wider.
    assert local == pytest.approx([1.85 if number == 250 else 1.95] * len(local), abs=0.1)


@pytest.mark.parametrize(("image_size", "number"), [(64, 250), (32, 2000)])
def test_a_ring_and_a_line_have_one_dimension(image_size: int, number: int) -> None:
    most = 1.2 if image_size == 64 else 1.35
    noise = 0.5 * normal(number, 2)
    for name, points in (("ring", ring(number, image_size)), ("line", line(number, image_size))):
        for kind, cloud in (("exact", points), ("rounded", points.round()), ("noisy", points + noise)):
            for value in (intrinsic_dimension(cloud), local_dimension(cloud, image_size)):
                assert 0.9 < value < most, (name, kind)


def test_a_point_has_no_dimension() -> None:
    place = torch.full((500, 2), 20.0, dtype=torch.float64)
    for points in (place, place + 0.3 * normal(500, 2), place[:3], place[:2], place[:0]):
        assert intrinsic_dimension(points) < 0.2
        assert local_dimension(points, 64) < 0.2


@pytest.mark.parametrize(("image_size", "radius"), [(64, 10), (32, 5)])
def test_half_a_ring_and_half_the_data_lie_between(image_size: int, radius: int) -> None:
    points = torch.cat([ring(1000, image_size).round(), data(1000, image_size, radius)])
    assert 1.3 < intrinsic_dimension(points) < 1.85
    assert 1.3 < local_dimension(points, image_size) < 1.85


def test_dimension_depends_on_neither_place_nor_chance() -> None:
    points = data(1000, 64, 10)
    values = [intrinsic_dimension(points + 100), *(intrinsic_dimension(points, seed=seed) for seed in range(4))]
    assert values == pytest.approx([2] * 5, abs=0.12)
    assert intrinsic_dimension(points) == intrinsic_dimension(points), "the same seed"


def test_half_of_the_data_still_has_two_dimensions() -> None:
    points = data(2000, 64, 10)
    for part in (points[points[:, 0] < 32], points[(points < 32).any(1)]):
        assert intrinsic_dimension(part) == pytest.approx(2, abs=0.15)
        assert local_dimension(part, 64) == pytest.approx(2, abs=0.15)


def test_two_neighbours_of_three_points_by_hand() -> None:
    """Without a point in the middle none is left out; ratios of 3-4-5 triangles."""
    points = torch.tensor([[0.0, 0.0], [300.0, 0.0], [300.0, 400.0]])
    ratios = [400 / 300, 500 / 300, 500 / 400]  # of the second vertex, the first, the third
    expected = 3 / sum(math.log(ratio) for ratio in ratios)
    assert intrinsic_dimension(points) == pytest.approx(expected, rel=0.02)


def test_local_dimension_is_the_participation_ratio() -> None:
    """Few points, spread wide: each one's neighbourhood is all of them."""
    points = 10 * normal(8, 2) @ torch.tensor([[3.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    values = np.linalg.eigvalsh(np.cov(points.numpy().T))
    expected = values.sum() ** 2 / (values**2).sum()
    assert 1.05 < expected < 1.9
    assert local_dimension(points, 64) == pytest.approx(expected, rel=0.05)

"""The data set against the paper's formulas, and its images against plain loops."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from coordconv_apps.coordinates.not_so_clevr import all_centers, draw_pairs, one_hot, pixel_index, render, split_centers


def as_set(centers: Tensor) -> set[tuple[int, int]]:
    return {(x, y) for x, y in centers.reshape(-1, 2).tolist()}


def loop_one_hot(centers: Tensor, canvas_size: int) -> npt.NDArray[np.float32]:
    images = np.zeros((len(centers), canvas_size, canvas_size), np.float32)
    for image, objects in zip(images, centers.tolist(), strict=True):
        for x, y in objects:
            image[y, x] = 1
    return images


def loop_render(centers: Tensor, canvas_size: int, square_size: int) -> npt.NDArray[np.float32]:
    images = np.zeros((len(centers), canvas_size, canvas_size), np.float32)
    for image, objects in zip(images, centers.tolist(), strict=True):
        for x, y in objects:
            left, top = x - square_size // 2, y - square_size // 2
            assert min(left, top) >= 0
            assert max(left, top) + square_size <= canvas_size
            for row in range(top, top + square_size):
                for column in range(left, left + square_size):
                    image[row, column] = 1
    return images


# ------------------------------------------------------------------ centres


def test_all_centers_are_those_of_the_paper() -> None:
    centers = all_centers()
    expected = [(x, y) for y in range(64) for x in range(64) if 4 <= x < 60 and 4 <= y < 60]
    assert len(expected) == 3136
    assert centers.dtype == torch.int64
    assert [tuple(center) for center in centers.tolist()] == expected, "row by row"


@pytest.mark.parametrize(("canvas_size", "square_size"), [(8, 1), (8, 2), (8, 3), (9, 4), (8, 8), (7, 7)])
def test_centres_are_where_a_square_fits(canvas_size: int, square_size: int) -> None:
    centers = all_centers(canvas_size, square_size)
    steps = range(canvas_size - square_size + 1)
    # The middle of a square: of an even side, the pixel right of and below it.
    expected = {(left + square_size // 2, top + square_size // 2) for left in steps for top in steps}
    assert as_set(centers) == expected
    assert len(centers) == len(expected)


def test_the_papers_quadrant_split() -> None:
    train, test = split_centers("quadrant")
    assert (len(train), len(test)) == (2407, 729)
    assert as_set(test) == {(x, y) for x in range(33, 60) for y in range(33, 60)}
    assert as_set(train) == as_set(all_centers()) - as_set(test)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.7])
def test_uniform_split_deals_every_centre_to_one_set(fraction: float) -> None:
    train, test = split_centers("uniform", test_fraction=fraction)
    assert train.shape[1:] == test.shape[1:] == (1, 2)
    assert len(train) + len(test) == 3136
    assert as_set(train) | as_set(test) == as_set(all_centers())
    assert as_set(train).isdisjoint(as_set(test))
    deviation = (fraction * (1 - fraction) / 3136) ** 0.5
    assert abs(len(test) / 3136 - fraction) < 4 * deviation
    for quarter in (test[:, 0] < 32).unbind(1):  # spread over the canvas, not a part of it
        assert abs(quarter.float().mean() - 0.5) < 0.1


def test_the_seed_fixes_the_uniform_split() -> None:
    one, same, other = (split_centers("uniform", 16, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train, same.train)
    assert torch.equal(one.test, same.test)
    assert as_set(one.test) != as_set(other.test)


def test_splits_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    draw_pairs(split_centers("uniform", 16, 3).train, 10, 0)
    assert torch.equal(torch.rand(1), expected)


def test_pairs_are_drawn_evenly_from_their_set() -> None:
    _, test = split_centers("quadrant", 12, 3)
    pairs = draw_pairs(test, 4000, seed=0)
    assert pairs.shape == (4000, 2, 2)
    assert as_set(pairs) == as_set(test)
    counts = torch.bincount(pixel_index(pairs, 12).flatten(), minlength=144)
    expected = 8000 / len(test)
    assert (counts[pixel_index(test, 12).flatten()] - expected).abs().max() < 5 * expected**0.5
    same = (pairs[:, 0] == pairs[:, 1]).all(1).float().mean()
    assert abs(same - 1 / len(test)) < 0.02, "one place is as good as another, also one that is taken"
    assert torch.equal(pairs, draw_pairs(test, 4000, seed=0))
    assert not torch.equal(pairs, draw_pairs(test, 4000, seed=1))


# ------------------------------------------------------------------ images


@pytest.mark.parametrize(("canvas_size", "square_size"), [(8, 1), (8, 2), (9, 3), (9, 4), (8, 8), (7, 7)])
def test_images_of_every_centre_equal_a_loop(canvas_size: int, square_size: int) -> None:
    centers = all_centers(canvas_size, square_size).unsqueeze(1)
    found = render(centers, canvas_size, square_size)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), loop_render(centers, canvas_size, square_size))
    assert (found.sum((1, 2)) == square_size**2).all()
    np.testing.assert_array_equal(one_hot(centers, canvas_size).numpy(), loop_one_hot(centers, canvas_size))


@pytest.mark.parametrize("square_size", [3, 4])
def test_images_of_two_objects_equal_a_loop(square_size: int) -> None:
    centers = draw_pairs(all_centers(9, square_size).unsqueeze(1), 200, seed=0)
    found = render(centers, 9, square_size)
    np.testing.assert_array_equal(found.numpy(), loop_render(centers, 9, square_size))
    np.testing.assert_array_equal(one_hot(centers, 9).numpy(), loop_one_hot(centers, 9))
    areas = set(found.sum((1, 2)).tolist())
    assert {float(square_size**2), 2.0 * square_size**2} < areas, "a test of those that overlap in part, too"


def test_the_first_index_of_an_image_is_the_row() -> None:
    centers = torch.tensor([[[2, 5]]])  # x, y
    assert one_hot(centers, 8).nonzero().tolist() == [[0, 5, 2]]
    assert render(centers, 8, 1).nonzero().tolist() == [[0, 5, 2]]
    assert pixel_index(centers, 8).tolist() == [[5 * 8 + 2]]


def test_images_of_no_sample_have_shape_0() -> None:
    none = torch.zeros(0, 1, 2, dtype=torch.int64)
    assert one_hot(none, 8).shape == render(none, 8, 3).shape == (0, 8, 8)


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"square_size": 65}, r"data\.square_size=65: must be at most data\.canvas_size=64"),
        ({"square_size": 0}, r"data\.square_size=0: must be an integer of at least 1"),
        ({"split": "half"}, r"data\.split=half: must be uniform or quadrant"),
        ({"split": "quadrant", "square_size": 64}, r"data\.split=quadrant: leaves no test sample of 1 "),
        (
            {"test_fraction": 0.001, "canvas_size": 8, "square_size": 7},
            "data.split=uniform: leaves no test sample of 4",
        ),
        (
            {"test_fraction": 0.999, "canvas_size": 8, "square_size": 7},
            "data.split=uniform: leaves no train sample of 4",
        ),
        ({"test_fraction": 0.0}, r"data\.test_fraction=0\.0: must be in \(0, 1\)"),
        ({"test_fraction": 1.0}, r"data\.test_fraction=1\.0: must be in \(0, 1\)"),
    ],
)
def test_impossible_values_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        split_centers(**{"split": "uniform", **arguments})
    assert "\n" not in str(error.value)

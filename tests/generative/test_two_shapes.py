"""The two-shape set against the paper's facts, and its images against plain loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from generative.pixel_range import to_float
from generative.two_shapes import COLOURS, SHAPES, Scenes, check_size, draw_scenes, render


def draw(number: int, image_size: int = 64, radius: int = 10, seed: int = 0) -> Scenes:
    return draw_scenes(number, image_size, radius, torch.Generator().manual_seed(seed))


def squared_distances(scenes: Scenes) -> Tensor:
    return (scenes.centers[:, 0] - scenes.centers[:, 1]).square().sum(1)


def loop_render(scenes: Scenes, image_size: int, radius: int) -> npt.NDArray[np.uint8]:
    """Pixel by pixel: white, then the blue object, then the red one over it."""
    images = np.full((len(scenes.centers), 3, image_size, image_size), 255, np.uint8)
    pixels = list(itertools.product(range(-radius, radius + 1), repeat=2))
    for image, centers, shapes in zip(images, scenes.centers.tolist(), scenes.shapes.tolist(), strict=True):
        for (x, y), shape, colour in ((centers[1], shapes[1], (0, 0, 255)), (centers[0], shapes[0], (255, 0, 0))):
            for dx, dy in pixels:
                if SHAPES[shape] == "square" or dx**2 + dy**2 <= radius**2:
                    assert 0 <= min(x + dx, y + dy) <= max(x + dx, y + dy) < image_size
                    image[:, y + dy, x + dx] = colour
    return images


# ------------------------------------------------------------------ what is in the images


def test_the_papers_centres_and_shapes() -> None:
    scenes = draw(40_000)
    centers, shapes = scenes
    assert centers.shape == (40_000, 2, 2)
    assert shapes.shape == (40_000, 2)
    assert centers.dtype == shapes.dtype == torch.int64
    for values in centers.flatten(1).unbind(1):
        assert (int(values.min()), int(values.max())) == (10, 53)
    assert squared_distances(scenes).min() == 20**2
    shares = torch.bincount(shapes[:, 0] * 2 + shapes[:, 1], minlength=4) / 40_000
    assert (shares - 0.25).abs().max() < 4 * (0.25 * 0.75 / 40_000) ** 0.5


@pytest.mark.parametrize(("image_size", "radius"), [(6, 1), (10, 2)])
def test_every_pair_of_places_is_as_likely_as_another(image_size: int, radius: int) -> None:
    places = list(itertools.product(range(radius, image_size - radius), repeat=2))
    allowed = [(*a, *b) for a in places for b in places if (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 >= 4 * radius**2]
    number = 100 * len(allowed)
    drawn, counts = draw(number, image_size, radius).centers.flatten(1).unique(dim=0, return_counts=True)
    assert sorted(map(tuple, drawn.tolist())) == sorted(allowed)
    chi_square = float(((counts - 100.0).square() / 100).sum())
    freedom = len(allowed) - 1
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_the_seed_fixes_the_scenes_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = draw(100), draw(100), draw(100, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for ours, theirs, different in zip(one, same, other, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, different)


# ------------------------------------------------------------------ images


@pytest.mark.parametrize(("image_size", "radius"), [(64, 10), (33, 4), (5, 1), (64, 18)])
def test_images_equal_a_loop_over_pixels(image_size: int, radius: int) -> None:
    scenes = draw(40, image_size, radius)
    images = render(scenes, image_size, radius)
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.numpy(), loop_render(scenes, image_size, radius))


def test_x_comes_first_and_red_and_blue_have_their_colours() -> None:
    assert COLOURS == ("red", "blue")
    scenes = Scenes(torch.tensor([[[12, 30], [45, 50]]]), torch.tensor([[1, 0]]))  # x, y
    (image,) = to_float(render(scenes, 64, 10))
    red, green, blue = image
    assert set(image.unique().tolist()) == {-1.0, 1.0}
    assert image[:, 30, 12].tolist() == [1, -1, -1]
    assert image[:, 50, 45].tolist() == [-1, -1, 1]
    assert image[:, 12, 30].tolist() == [1, 1, 1]
    rows, columns = ((red == 1) & (green == -1)).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 40, 2, 22)
    assert len(rows) == 21**2
    assert ((blue == 1) & (green == -1)).sum() == 317, "whole points within 10 of the centre"


@pytest.mark.parametrize("number", [0, 300])
def test_images_do_not_depend_on_how_many_are_rendered_at_once(number: int) -> None:
    scenes = draw(300, 12, 2).at(slice(number))
    single = [render(scenes.at(torch.tensor([index])), 12, 2) for index in range(number)]
    images = render(scenes, 12, 2)
    assert images.shape == (number, 3, 12, 12)
    if number:
        assert torch.equal(images, torch.cat(single))


def test_images_can_be_changed_without_harm_to_later_ones() -> None:
    scenes = draw(5)
    first = render(scenes, 64, 10)
    expected = first.clone()
    first.zero_()
    assert torch.equal(render(scenes, 64, 10), expected)


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("image_size", range(1, 13))
@pytest.mark.parametrize("radius", range(1, 6))
def test_sizes_are_refused_if_and_only_if_no_two_objects_fit(image_size: int, radius: int) -> None:
    places = list(itertools.product(range(radius, image_size - radius), repeat=2))
    if any((a - c) ** 2 + (b - d) ** 2 >= 4 * radius**2 for a, b in places for c, d in places):
        check_size(image_size, radius)
        scenes = draw(50, image_size, radius)
        assert squared_distances(scenes).min() >= 4 * radius**2
        assert {tuple(center) for center in scenes.centers.flatten(0, 1).tolist()} <= set(places)
    else:
        with pytest.raises(ValueError, match=rf"^data\.radius={radius}: two objects do not fit into {image_size} pix"):
            draw(50, image_size, radius)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 19), "data.radius=19: two objects do not fit into 64 pixels, must be at most 18"),
        ((4, 1), "data.radius=1: two objects do not fit into 4 pixels, no radius fits; raise data.image_size"),
        ((64, 0), "data.radius=0: must be an integer of at least 1"),
    ],
)
def test_impossible_sizes_are_reported_in_one_line(arguments: Any, message: str) -> None:  # noqa: ANN401  # parametrised
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        check_size(*arguments)
    assert str(caught.value) == message

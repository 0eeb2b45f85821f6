"""Walks along latent directions: where they go, and what is measured, on films whose figures are known."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from generative.latent_walks import MAX_STEP, STEPS, in_batches, measure_walks, walk_latents, walk_metrics
from generative.pixel_range import to_float
from generative.two_shapes import Scenes, render
from tests.generative.tiny import RADIUS, SIZE, apart, draw_uniform, walks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from generative.latent_walks import WalkMeasurements

BLUE = (24, 26)


def metrics_of(sample: Callable[[Tensor], Tensor], *, each: int = 13, reach: float = 1.0) -> dict[str, float]:
    """The summary of walks along all latents."""
    return walk_metrics(walks_of(sample, each=each, steps=STEPS, reach=reach), reach)


def film(places: Sequence[tuple[int, int] | None], squares: Sequence[int] | None = None) -> Tensor:
    """Images in a row: red where it is said, or nothing at all; blue stays. Some of the red ones are squares."""
    shapes = torch.zeros(len(places), 2, dtype=torch.int64)
    shapes[list(squares or ()), 0] = 1
    centers = torch.tensor([[place or (6, 6), BLUE] for place in places])
    images = to_float(render(Scenes(centers, shapes), SIZE, RADIUS))
    images[[place is None for place in places]] = 1
    return images


def shown(*films: Tensor) -> WalkMeasurements:
    """Figures of films, each of which is shown along its own walk: latent 0 is the time, latent 1 the film."""
    reels = torch.stack(films)
    steps = reels.shape[1]

    def sample(latents: Tensor) -> Tensor:
        time = ((latents[:, 0] + 1) / 2 * (steps - 1)).round().long()
        return reels[latents[:, 1].long(), time]

    latents = torch.stack([torch.full((len(films),), 0.3), torch.arange(len(films)).float()], 1)
    return measure_walks(sample, latents, torch.zeros(len(films), dtype=torch.int64), RADIUS, steps=steps)


# ------------------------------------------------------------------ where walks go


def test_along_an_axis_one_latent_changes() -> None:
    latents = draw_uniform(3, 0, 4)
    points = walk_latents(latents, torch.tensor([2, 0, 2]), steps=5, reach=2.0)
    assert points.shape == (3, 5, 4)
    for row, axis in enumerate((2, 0, 2)):
        torch.testing.assert_close(points[row, :, axis], torch.tensor([-2.0, -1, 0, 1, 2]))
        others = [a for a in range(4) if a != axis]
        torch.testing.assert_close(points[row][:, others], latents[row, others].expand(5, 3))


def test_a_walk_has_two_ends() -> None:
    with pytest.raises(ValueError, match=r"^steps=1: must be an integer of at least 2$"):
        walk_latents(torch.ones(2, 3), torch.tensor([0, 1]), 1)


def test_images_are_made_a_few_at_a_time_and_in_order() -> None:
    sizes = []

    def sample(latents: Tensor) -> Tensor:
        sizes.append(len(latents))
        return latents[:, :, None, None]

    made = torch.cat(list(in_batches(sample, torch.arange(150.0)[:, None])))
    assert made.flatten().tolist() == list(range(150))
    assert max(sizes) <= 64


# ------------------------------------------------------------------ what is measured


@pytest.mark.parametrize(
    ("places", "distance", "displacement", "longest", "translation"),
    [
        ([(6, 8), (8, 8), (10, 8), (12, 8)], 6, 6, 2, 6),
        ([(6, 8), (9, 8), (6, 8)], 6, 0, 3, 6),
        ([(6, 6), (6, 9), (9, 9)], 6, 18**0.5, 3, 6),
        ([(6, 8), (8, 8), (20, 8), (22, 8)], 16, 16, 12, 4),  # jumps
        ([(6, 8), None, (9, 8), (10, 8)], 4, 4, 3, 1),  # who knows what was between
        ([None, (8, 8), (10, 8), None], 2, 2, 2, 2),
        ([None, (8, 8), None], 0, 0, 0, 0),
        ([None, None], 0, 0, 0, 0),
    ],
)
def test_the_path_of_a_centre_equals_that_by_hand(
    places: list[tuple[int, int] | None], distance: float, displacement: float, longest: float, translation: float
) -> None:
    figures = shown(film(places))
    red = (figures.distance, figures.displacement, figures.longest, figures.translation)
    expected = (distance, displacement, longest, translation)
    assert tuple(float(figure[0, 0]) for figure in red) == pytest.approx(expected, abs=1e-3)
    assert all(float(figure[0, 1]) == pytest.approx(0, abs=1e-3) for figure in red), "blue stays"
    assert figures.valid[0].tolist() == [place is not None for place in places]
    neighbours = sum(a is not None and b is not None for a, b in pairwise(places))
    assert figures.neighbours.tolist() == figures.same_shapes.tolist() == [neighbours]


def test_a_step_longer_than_the_limit_is_a_jump() -> None:
    limit = int(MAX_STEP * RADIUS)
    figures = shown(film([(6, 8), (6 + limit, 8)]), film([(6, 8), (7 + limit, 8)]))
    assert figures.translation[:, 0].tolist() == pytest.approx([limit, 0], abs=1e-3)


def test_where_a_shape_changes_nothing_is_translated() -> None:
    figures = shown(film([(6, 8), (8, 8), (10, 8), (12, 8)], squares=[2, 3]))
    assert float(figures.distance[0, 0]) == pytest.approx(6, abs=1e-3)
    assert float(figures.translation[0, 0]) == pytest.approx(4, abs=1e-3)
    assert (figures.neighbours.tolist(), figures.same_shapes.tolist()) == ([3], [2])
    assert figures.shapes[0].tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]


def test_centres_of_several_walks_are_those_of_their_images() -> None:
    places = [[(6, 6), (7, 20)], [(25, 8), (24, 9)], [(5, 24), (10, 26)]]
    figures = shown(*(film([a, b]) for a, b in places))
    torch.testing.assert_close(figures.centers[:, :, 0], torch.tensor(places).float())
    torch.testing.assert_close(figures.centers[:, :, 1], torch.tensor(BLUE).float().expand(3, 2, 2))
    assert figures.axes.tolist() == [0, 0, 0]


def test_the_summary_equals_that_by_hand() -> None:
    figures = shown(
        film([(6, 8), (8, 8), (10, 8), (9, 8), (8, 8)]),  # 6 pixels, ends at 2 pixels, 2 the longest
        film([(6, 8), (8, 8), None, (20, 8), (20, 9)]),  # 15 pixels, 14.04 away, 12 the longest; 3 are steady
    )
    assert walk_metrics(figures, 1.5) == pytest.approx(
        {
            "walk_distance": 21 / 4 / 3,  # two walks, two objects; 3 units of a latent
            "walk_translation": 9 / 4 / 3,
            "walk_straightness": (2 + (14**2 + 1) ** 0.5) / 21,
            "walk_jump": 14 / 21,
            "walk_same_shapes": 1.0,
            "walk_valid": 0.9,
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(("image", "same", "valid"), [(film([(8, 8)]), 1.0, 1.0), (film([None]), 0.0, 0.0)])
def test_motion_is_zero_and_the_jump_one_where_nothing_moves(image: Tensor, same: float, valid: float) -> None:
    found = metrics_of(lambda latents: image.expand(len(latents), -1, -1, -1), each=1)
    assert found == {
        "walk_distance": 0.0,
        "walk_translation": 0.0,
        "walk_straightness": 0.0,
        "walk_jump": 1.0,
        "walk_same_shapes": same,
        "walk_valid": valid,
    }


# ------------------------------------------------------------------ generators


@pytest.mark.parametrize("reach", [1.0, 0.5])
def test_summary_of_even_movement_equals_that_by_hand(reach: float) -> None:
    found = metrics_of(apart, reach=reach)
    # Per unit, two latents move a centre by 8 pixels and two by 1; there are five latents and two objects.
    assert found["walk_distance"] == pytest.approx((8 + 1 + 8 + 1) / (5 * 2), rel=0.02)
    assert found["walk_translation"] == found["walk_distance"]
    assert found["walk_straightness"] == pytest.approx(1, abs=0.02)
    assert found["walk_jump"] == pytest.approx(1 / (STEPS - 1), rel=0.1)
    assert found["walk_same_shapes"] == found["walk_valid"] == 1

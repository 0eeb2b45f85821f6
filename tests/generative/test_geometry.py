"""Walks along latent directions: where they go, and what is measured, on films whose figures are known."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from generative.geometry import (
    JUMP,
    STEPS,
    WALKS,
    draw_geometry,
    in_batches,
    measure_walks,
    summarise,
    walk,
    walk_along_axes,
)
from generative.shapes import Scenes, as_float, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from generative.geometry import WalkFigures

SIZE, RADIUS = 32, 5
BLUE = (24, 26)


def soft_shapes(centers: Tensor, squareness: Tensor, size: int, radius: int) -> Tensor:
    """Images (B, 3, H, W) of soft-edged objects at centres (B, 2, 2), each a circle at 0 and a square at 1 (B, 2)."""
    x, y = (
        pixels - centers[..., axis, None, None]
        for axis, pixels in enumerate(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"))
    )
    square = squareness[..., None, None]
    distance = (1 - square) * x.hypot(y) + square * torch.maximum(x.abs(), y.abs())
    red, blue = (2 * (radius + 0.5 - distance)).sigmoid().unbind(1)
    blue = blue * (1 - red)
    return 1 - 2 * torch.stack([blue, red + blue, red], 1)


def apart(latents: Tensor) -> Tensor:
    """Latents 0 and 1 move red up and down by 8 pixels and across by 1, 2 and 3 do so with blue, beside it."""
    x = torch.stack([6 + latents[:, 1], 25 + latents[:, 3]], 1)
    y = 15.5 + 8 * latents[:, [0, 2]]
    return soft_shapes(torch.stack([x, y], -1), torch.zeros(len(latents), 2), SIZE, RADIUS)


def leaping(latents: Tensor) -> Tensor:
    """As `apart`, but red and blue are either quite up or quite down."""
    return apart(torch.where(latents < 0, -1.0, 1.0) * torch.tensor([1, 0, 1, 0, 0]))


def fading(latents: Tensor) -> Tensor:
    """Where `apart` goes from one place to another, one image fades into the other."""
    ends = latents[:, :4] * torch.tensor([0.0, 1, 0, 1])
    up, down = (apart(ends + torch.tensor([end, 0.0, end, 0.0])) for end in (-1, 1))
    share = (latents[:, 0, None, None, None] + 1) / 2
    return (1 - share) * up + share * down


def draw_uniform(number: int, seed: int, size: int = 5) -> Tensor:
    return 2 * torch.rand(number, size, generator=torch.Generator().manual_seed(seed)) - 1


def geometry_of(
    sample: Callable[[Tensor], Tensor], *, walks: int = WALKS, steps: int = STEPS, seed: int = 0, reach: float = 1.0
) -> dict[str, float]:
    """The summary of walks along all latents."""
    figures = walk_along_axes(sample, draw_uniform, RADIUS, walks=walks, steps=steps, seed=seed, reach=reach)
    return summarise(figures, reach)


def film(places: Sequence[tuple[int, int] | None], squares: Sequence[int] | None = None) -> Tensor:
    """Images in a row: red where it is said, or nothing at all; blue stays. Some of the red ones are squares."""
    shapes = torch.zeros(len(places), 2, dtype=torch.int64)
    shapes[list(squares or ()), 0] = 1
    centers = torch.tensor([[place or (6, 6), BLUE] for place in places])
    images = as_float(render(Scenes(centers, shapes), SIZE, RADIUS))
    images[[place is None for place in places]] = 1
    return images


def shown(*films: Tensor) -> WalkFigures:
    """Figures of films, each of which is shown along its own walk: latent 0 is the time, latent 1 the film."""
    reels = torch.stack(films)
    steps = reels.shape[1]

    def sample(latents: Tensor) -> Tensor:
        time = ((latents[:, 0] + 1) / 2 * (steps - 1)).round().long()
        return reels[latents[:, 1].long(), time]

    latents = torch.stack([torch.full((len(films),), 0.3), torch.arange(len(films)).float()], 1)
    direction = torch.tensor([[2.0, 0.0]]).expand(len(films), 2)
    return measure_walks(sample, latents, direction, RADIUS, steps=steps)


# ------------------------------------------------------------------ where walks go


def test_along_an_axis_one_latent_changes() -> None:
    latents = draw_uniform(3, 0, 4)
    points = walk(latents, torch.eye(4)[[2, 0, 2]], steps=5, reach=2.0)
    assert points.shape == (3, 5, 4)
    for row, axis in enumerate((2, 0, 2)):
        torch.testing.assert_close(points[row, :, axis], torch.tensor([-2.0, -1, 0, 1, 2]))
        others = [a for a in range(4) if a != axis]
        torch.testing.assert_close(points[row][:, others], latents[row, others].expand(5, 3))


def test_along_a_direction_its_coordinate_goes_evenly_from_end_to_end() -> None:
    latents, directions = draw_uniform(6, 1, 7), 3 * draw_uniform(6, 2, 7)
    points = walk(latents, directions, steps=9, reach=1.5).double().numpy()
    for way, start, line in zip(directions.double().numpy(), latents.double().numpy(), points, strict=True):
        unit = way / np.linalg.norm(way)
        np.testing.assert_allclose(line @ unit, np.linspace(-1.5, 1.5, 9), atol=1e-6)
        beside = np.eye(7) - np.outer(unit, unit)
        np.testing.assert_allclose(line @ beside, np.tile(beside @ start, (9, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "other", "steps", "message"),
    [
        ((2, 3), (2, 4), 5, r"latents of shape \(2, 3\), directions of shape \(2, 4\): must both be \(n, z\)"),
        ((3,), (3,), 5, r"latents of shape \(3,\), directions of shape \(3,\): must both be \(n, z\)"),
        ((2, 3), (2, 3), 1, "steps=1: must be an integer of at least 2"),
    ],
)
def test_walks_that_cannot_be(shape: tuple[int, ...], other: tuple[int, ...], steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        walk(torch.ones(shape), torch.ones(other), steps)


def test_a_direction_needs_a_length() -> None:
    with pytest.raises(ValueError, match=r"^directions: row 1 is 0 everywhere, it must have a length$"):
        walk(torch.ones(3, 2), torch.tensor([[1.0, 0], [0, 0], [0, 1]]))


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
def test_path_of_a_centre(
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
    limit = int(JUMP * RADIUS)
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


def test_summary_by_hand() -> None:
    figures = shown(
        film([(6, 8), (8, 8), (10, 8), (9, 8), (8, 8)]),  # 6 pixels, ends at 2 pixels, 2 the longest
        film([(6, 8), (8, 8), None, (20, 8), (20, 9)]),  # 15 pixels, 14.04 away, 12 the longest; 3 are steady
    )
    assert summarise(figures, 1.5) == pytest.approx(
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
def test_summary_where_nothing_moves(image: Tensor, same: float, valid: float) -> None:
    found = geometry_of(lambda latents: image.expand(len(latents), -1, -1, -1), walks=4)
    assert found == {
        "walk_distance": 0.0,
        "walk_translation": 0.0,
        "walk_straightness": 0.0,
        "walk_jump": 1.0,
        "walk_same_shapes": same,
        "walk_valid": valid,
    }


def test_images_that_are_not_finite_are_not_valid() -> None:
    found = geometry_of(lambda z: torch.full((len(z), 3, SIZE, SIZE), float("nan")), walks=5)
    assert found["walk_valid"] == 0
    assert all(np.isfinite(value) for value in found.values())


# ------------------------------------------------------------------ generators


@pytest.mark.parametrize("reach", [1.0, 0.5])
def test_a_generator_that_moves_evenly(reach: float) -> None:
    found = geometry_of(apart, reach=reach)
    # Per unit, two latents move a centre by 8 pixels and two by 1; there are five latents and two objects.
    assert found["walk_distance"] == pytest.approx((8 + 1 + 8 + 1) / (5 * 2), rel=0.02)
    assert found["walk_translation"] == found["walk_distance"]
    assert found["walk_straightness"] == pytest.approx(1, abs=0.02)
    assert found["walk_jump"] == pytest.approx(1 / (STEPS - 1), rel=0.1)
    assert found["walk_same_shapes"] == found["walk_valid"] == 1


def test_leaps_and_fades_are_no_translation() -> None:
    even, leaps, fades = (geometry_of(sample) for sample in (apart, leaping, fading))
    assert leaps["walk_distance"] == pytest.approx(2 * 16 / (5 * 2) / 2, rel=0.1)
    assert leaps["walk_translation"] < 0.05 * leaps["walk_distance"]
    assert leaps["walk_jump"] > 0.9
    assert fades["walk_translation"] < 0.25 * even["walk_translation"]
    assert fades["walk_valid"] < 0.9


def test_walks_along_axes_use_every_latent_equally_often() -> None:
    figures = walk_along_axes(apart, draw_uniform, RADIUS, walks=11, steps=3)
    assert figures.axes.tolist() == [axis for axis in range(5) for _ in range(3)]
    # Each walk goes through a point of its own: where red is at all is told by latents 0 and 1.
    middle = figures.centers[figures.axes == 4][:, 1, 0]
    expected = torch.stack([6 + draw_uniform(15, 0)[12:, 1], 15.5 + 8 * draw_uniform(15, 0)[12:, 0]], 1)
    torch.testing.assert_close(middle, expected, atol=0.1, rtol=0)


def test_the_seed_fixes_the_points() -> None:
    found = [geometry_of(fading, walks=5, steps=5, seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_walks_are_needed() -> None:
    with pytest.raises(ValueError, match=r"^walks=0: must be an integer of at least 1$"):
        geometry_of(apart, walks=0)


# ------------------------------------------------------------------ the figure


def draw(sample: Callable[[Tensor], Tensor], latents: int = 5) -> tuple[list[float], list[str], int]:
    """Heights of the bars behind, names of the latents below them, and the number of paths in the panels."""
    figures = walk_along_axes(sample, lambda n, seed: draw_uniform(n, seed, latents), RADIUS, walks=10, steps=5)
    figure = draw_geometry(figures, SIZE, RADIUS, "a title")
    figure.canvas.draw()
    left, right = figure.subfigs
    bars, shares = left.axes
    names = [label.get_text() for label in shares.get_xticklabels()]
    heights = [bar.get_height() for bar in bars.containers[0]]
    paths = sum(len(panel.collections) for panel in right.axes)
    assert len(right.axes) == 6
    return heights, names, paths


def test_figure_has_the_farthest_latent_first() -> None:
    heights, names, paths = draw(apart)
    assert heights == pytest.approx([8, 8, 1, 1, 0], abs=0.2)
    assert {*names[:2]} == {"0", "2"}
    assert {*names[2:4]} == {"1", "3"}
    assert names[4] == "4"
    assert paths == 2 * 5


def test_figure_of_a_generator_that_has_failed() -> None:
    heights, names, _ = draw(lambda latents: torch.ones(len(latents), 3, SIZE, SIZE))
    assert heights == [0] * 5
    assert names == ["0", "1", "2", "3", "4"]


def test_figure_of_many_latents_names_some() -> None:
    heights, names, paths = draw(apart, latents=60)
    assert len(heights) == 60
    assert len(names) == 20
    assert paths == 2 * 6

"""Figures of clouds against independent implementations and formulas, and the dimension of clouds that are known."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from generative import clouds
from generative.dimension import intrinsic_dimension, local_dimension
from generative.shapes import draw_scenes

SIZES = pytest.mark.parametrize(("image_size", "radius"), [(64, 10), (32, 5)])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(number: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(number, columns, generator=generator(seed), dtype=torch.float64)


def approx(expected: dict[str, float]) -> object:
    return pytest.approx(expected, abs=1e-12)


# ------------------------------------------------------------------ neighbours


def neighbours_by_sklearn(real: Tensor, generated: Tensor, number: int, k: int) -> dict[str, float]:
    def balls(points: Tensor) -> tuple[NearestNeighbors, np.ndarray]:
        tree = NearestNeighbors(n_neighbors=k + 1).fit(points.numpy())
        return tree, tree.kneighbors(points.numpy())[0][:, k]

    def inside(center: np.ndarray, radius: float, points: Tensor) -> list[bool]:
        return [math.dist(center, point) <= radius + 1e-9 for point in points.tolist()]

    hits = np.array([inside(c, r, generated) for c, r in zip(real.numpy(), balls(real)[1], strict=True)])
    recalled = np.array([inside(c, r, real) for c, r in zip(generated.numpy(), balls(generated)[1], strict=True)])
    return {
        "precision": hits.any(0).sum() / number,
        "recall": recalled.any(0).mean(),
        "density": hits.sum() / (k * number),
        "coverage": hits.any(1).mean(),
    }


@pytest.mark.parametrize("case", ["apart", "lattice", "copies"])
def test_neighbour_figures_equal_those_by_sklearn(case: str) -> None:
    real, generated = normal(70, 4), normal(50, 4, seed=1) + 0.7
    if case == "lattice":  # most distances tie
        real, generated = (2 * real).round(), (2 * generated).round()
    if case == "copies":
        generated = generated[:4].repeat_interleave(13, 0)[:50]
    for k, number in ((5, 50), (2, 50), (5, 80)):  # 30 of the last are nowhere
        figures = clouds.neighbour_figures(real, generated, number, k)
        assert figures == approx(neighbours_by_sklearn(real, generated, number, k))
        assert 0 < figures["coverage"] < 1


def test_neighbour_figures_at_the_extremes() -> None:
    real = normal(40, 4)
    same = clouds.neighbour_figures(real, real, 40)
    assert {key: same[key] for key in ("precision", "recall", "coverage")} == {
        "precision": 1,
        "recall": 1,
        "coverage": 1,
    }
    assert same["density"] >= 1
    for nowhere in (real + 100, real[:0]):
        assert set(clouds.neighbour_figures(real, nowhere, 40).values()) == {0}
    few = clouds.neighbour_figures(real, real[:5], 40)
    assert few["recall"] == 0, "five points have no fifth neighbour"
    assert few["precision"] == 5 / 40


# ------------------------------------------------------------------ histograms


def test_histograms_equal_numpys() -> None:
    real, generated = 10 * normal(300, 2), 6 * normal(200, 2, seed=1) + 3
    counts = clouds.histograms(real, generated, -20, 20, 7)
    edges = np.linspace(-20, 20, 8)
    for points, count in ((real, counts.real), (generated, counts.generated)):
        # What lies beyond counts in the outermost bins.
        x, y = points.clamp(-19.9, 19.9).numpy().T
        expected, _, _ = np.histogram2d(y, x, bins=[edges, edges])
        assert np.array_equal(count.numpy().reshape(7, 7), expected)


def test_histogram_figures_equal_scipys_and_the_test_of_two_proportions() -> None:
    counts = clouds.histograms(10 * normal(300, 2), 6 * normal(200, 2, seed=1) + 3, -30, 30, 8)
    real, generated = counts.real.numpy(), counts.generated.numpy()
    p, q = real / real.sum(), generated / generated.sum()
    different = []
    for a, b in zip(real, generated, strict=True):
        if a + b:
            pooled = (a + b) / (300 + 200)
            z = (a / 300 - b / 200) / math.sqrt(pooled * (1 - pooled) * (1 / 300 + 1 / 200))
            different.append(math.erfc(abs(z) / math.sqrt(2)) < 0.05)
    assert 0 < sum(different) < len(different) < 64
    assert clouds.histogram_figures(counts) == approx(
        {
            "bin_coverage": sum(1 for a, b in zip(real, generated, strict=True) if a and b) / (real > 0).sum(),
            "entropy": entropy(q, base=2),
            "entropy_reduction": 1 - entropy(q) / entropy(p),
            "js_divergence": jensenshannon(p, q, base=2) ** 2,
            "different_bins": sum(different) / len(different),
        }
    )


def test_histogram_figures_at_the_extremes() -> None:
    real = torch.tensor([5.0, 5, 5, 5, 0], dtype=torch.float64)
    cases: dict[str, tuple[Tensor, list[float | None]]] = {
        "the same": (real, [1, 2, 0, 0, 0]),
        "all in one bin": (torch.tensor([20.0, 0, 0, 0, 0]), [0.25, 0, 1, None, 1]),
        "all elsewhere": (torch.tensor([0.0, 0, 0, 0, 20]), [0, 0, 1, 1, 1]),
        "nothing": (torch.zeros(5), [0, 0, 1, 1, 1]),
    }
    names = ["bin_coverage", "entropy", "entropy_reduction", "js_divergence", "different_bins"]
    for name, (generated, expected) in cases.items():
        figures = clouds.histogram_figures(clouds.Histograms(real, generated.double()))
        for key, value in zip(names, expected, strict=True):
            if value is not None:
                assert figures[key] == pytest.approx(value), (name, key)
    assert not any(math.copysign(1, value) < 0 for value in figures.values()), "no -0"


def test_bins_get_about_ten_points_each() -> None:
    assert [clouds.bins_for(number) for number in (1, 10, 90, 250, 1000, 5000)] == [2, 2, 3, 5, 10, 22]


# ------------------------------------------------------------------ distances and copies


def test_sliced_wasserstein_equals_an_optimal_assignment_of_the_projections() -> None:
    real, generated = normal(40, 2), normal(40, 2, seed=1) * torch.tensor([2.0, 0.5]) + 1
    total = 0.0
    for number in range(clouds.DIRECTIONS):
        angle = math.pi * number / clouds.DIRECTIONS
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        costs = ((real @ direction)[:, None] - generated @ direction).square().numpy()
        total += costs[linear_sum_assignment(costs)].mean()
    expected = math.sqrt(total / clouds.DIRECTIONS)
    assert clouds.sliced_wasserstein(real, generated) == pytest.approx(expected)
    # As many times as many points in the same places are the same cloud.
    assert clouds.sliced_wasserstein(real, generated.repeat(3, 1)) == pytest.approx(expected)
    assert clouds.sliced_wasserstein(real.repeat(3, 1), generated) == pytest.approx(expected)


def test_sliced_wasserstein_of_a_moved_cloud() -> None:
    real = normal(50, 2)
    assert clouds.sliced_wasserstein(real, real.flip(0)) == pytest.approx(0)
    moved = real + torch.tensor([3.0, 4.0])
    assert clouds.sliced_wasserstein(real, moved) == pytest.approx(5 / math.sqrt(2))


def test_support_size_equals_a_count_of_pairs() -> None:
    points = torch.randint(4, (60, 4), generator=generator()).double()
    points += 0.3 * torch.randint(2, (60, 4), generator=generator(1)).double()
    kinds = torch.randint(2, (60, 2), generator=generator(2))
    same = sum(
        bool(((points[i] - points[j]).abs() <= 0.5).all() and (kinds[i] == kinds[j]).all())
        for i, j in itertools.combinations(range(60), 2)
    )
    assert same > 0
    assert clouds.support_size(points, kinds) == pytest.approx(60 * 59 / 2 / same)


def test_support_size_finds_the_number_of_images_drawn_from() -> None:
    places = 100 * normal(50, 4)
    drawn = torch.randint(50, (2000,), generator=generator())
    kinds = torch.zeros(2000, 2, dtype=torch.int64)
    assert clouds.support_size(places[drawn], kinds) == pytest.approx(50, rel=0.05)
    assert clouds.support_size(places[:1].repeat(30, 1), kinds[:30]) == 1
    assert clouds.support_size(places, kinds[:50]) == 50 * 49 / 2, "no pair: the most that 50 can tell"
    assert [clouds.support_size(places[:n], kinds[:n]) for n in (0, 1)] == [0, 1]


# ------------------------------------------------------------------ dimension


def data(number: int, image_size: int, radius: int, seed: int = 0) -> Tensor:
    return draw_scenes(number, image_size, radius, generator(seed)).centers[:, 0].double()


def ring(number: int, image_size: int, seed: int = 0) -> Tensor:
    angle = 2 * math.pi * torch.rand(number, generator=generator(seed), dtype=torch.float64)
    return (image_size - 1) / 2 + 0.35 * image_size * torch.stack([angle.cos(), angle.sin()], 1)


def line(number: int, image_size: int) -> Tensor:
    along = 0.7 * image_size * (torch.rand(number, generator=generator(), dtype=torch.float64) - 0.5)
    return (image_size - 1) / 2 + torch.stack([0.9 * along, 0.4 * along], 1)


@SIZES
@pytest.mark.parametrize("number", [250, 1000, 5000])
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


@SIZES
@pytest.mark.parametrize("number", [250, 2000])
def test_a_ring_and_a_line_have_one_dimension(image_size: int, radius: int, number: int) -> None:
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


def test_copies_of_ten_places_have_less_than_one_dimension() -> None:
    points = data(10, 64, 10)[torch.arange(1000) % 10]
    assert intrinsic_dimension(points) < 1
    assert local_dimension(points, 64) < 1


@SIZES
def test_half_a_ring_and_half_the_data_lie_between(image_size: int, radius: int) -> None:
    points = torch.cat([ring(1000, image_size).round(), data(1000, image_size, radius)])
    assert 1.3 < intrinsic_dimension(points) < 1.85
    assert 1.3 < local_dimension(points, image_size) < 1.85


def test_dimension_does_not_depend_on_place_scale_of_the_crowd_or_chance() -> None:
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

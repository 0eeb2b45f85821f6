"""Metrics of mode collapse on made-up collapses, whatever the batches and processes, and what they refuse."""

import math
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from generative.metrics import TwoShapeMetrics, two_shapes
from generative.pixel_range import to_float
from generative.two_shapes import Scenes, draw_scenes, render
from tests.generative.metrics.point_clouds import generator
from tests.generative.tiny import of_two_processes

SIZE, RADIUS, NUMBER = 32, 5, 360


def scenes(number: int, seed: int) -> Scenes:
    return draw_scenes(number, SIZE, RADIUS, generator(seed))


def some(of: Scenes, chosen: Tensor) -> Scenes:
    """The first `NUMBER` of the chosen ones."""
    index = chosen.nonzero()[:NUMBER, 0]
    assert len(index) == NUMBER
    return Scenes(of.centers[index], of.shapes[index])


def images_of(these: Scenes) -> Tensor:
    return to_float(render(these, SIZE, RADIUS))


def opposite(red: Tensor) -> Scenes:
    """Red at these places and blue across the middle, all shapes."""
    centers = torch.stack([red, SIZE - 1 - red], 1)
    return Scenes(centers.round().long(), torch.randint(2, (len(red), 2), generator=generator()))


@cache
def made_up(name: str) -> Tensor:
    """`NUMBER` images of a generator that fails in a known way."""
    many = scenes(6 * NUMBER, seed=2)
    share = torch.rand(NUMBER, generator=generator(3))
    if name == "data":
        return images_of(scenes(NUMBER, seed=1))
    if name == "ring":
        angle = 2 * math.pi * share
        return images_of(opposite(15.5 + 0.31 * SIZE * torch.stack([angle.cos(), angle.sin()], 1)))
    if name == "line":
        return images_of(opposite(torch.stack([5 + 21 * share, torch.full_like(share, 7)], 1)))
    if name == "point":
        return images_of(Scenes(torch.tensor([[[9, 9], [22, 20]]]).expand(NUMBER, 2, 2), torch.ones(NUMBER, 2).long()))
    if name == "ten copies":
        return images_of(Scenes(many.centers[:10], many.shapes[:10])).repeat(NUMBER // 10, 1, 1, 1)
    if name == "no red circle":
        return images_of(some(many, many.shapes[:, 0] == 1))
    if name == "no upper left":
        return images_of(some(many, (many.centers >= SIZE // 2).any(2).all(1)))
    if name == "left half":
        return images_of(some(many, (many.centers[:, 0, 0] < SIZE // 2)))
    if name == "half noise":
        return torch.cat([images_of(scenes(NUMBER // 2, seed=1)), made_up("noise")[: NUMBER // 2]])
    assert name == "noise"
    return torch.rand(NUMBER, 3, SIZE, SIZE, generator=generator()) * 2 - 1


@cache
def real_images() -> Tensor:
    return images_of(scenes(2 * NUMBER, seed=0))


def measure(metric: TwoShapeMetrics, generated: Tensor, real: Tensor | None = None) -> dict[str, float]:
    metric.update(real_images() if real is None else real, real=True)
    metric.update(generated, real=False)
    return {name: float(value) for name, value in metric.compute().items()}


@cache
def figures(name: str) -> dict[str, float]:
    return measure(TwoShapeMetrics(SIZE, RADIUS), made_up(name))


# ------------------------------------------------------------------ what there is


def test_every_metric_comes_with_its_value_for_real_data() -> None:
    values = figures("data")
    of_clouds = [
        "bin_coverage",
        "entropy",
        "entropy_reduction",
        "js_divergence",
        "sliced_wasserstein",
        "different_bins",
        "intrinsic_dimension",
        "local_dimension",
    ]
    names = ["invalid", "precision", "recall", "density", "coverage", "pairs_distance", "support_size"]
    names += [name for name in of_clouds if name != "entropy"]
    names += [f"{cloud}/{name}" for cloud in ("red", "blue", "difference") for name in of_clouds]
    names += [f"pairs/{red}_{blue}" for red in ("circle", "square") for blue in ("circle", "square")]
    assert sorted(values) == sorted([*names, *(f"floor/{name}" for name in names)])
    for name in of_clouds:
        if name != "entropy":
            assert values[name] == pytest.approx((values[f"red/{name}"] + values[f"blue/{name}"]) / 2, rel=1e-5)
    metric = TwoShapeMetrics(SIZE, RADIUS)
    metric.update(real_images(), real=True)
    metric.update(made_up("data"), real=False)
    assert all(value.shape == () and value.dtype == torch.float32 for value in metric.compute().values())


@pytest.mark.parametrize(("image_size", "radius", "number"), [(32, 5, 400), (64, 10, 150)])
def test_real_images_have_the_values_of_real_data(image_size: int, radius: int, number: int) -> None:
    drawn = draw_scenes(3 * number, image_size, radius, generator(5))
    images = to_float(render(drawn, image_size, radius))
    values = measure(TwoShapeMetrics(image_size, radius), images[: -2 * number], images[-2 * number :])
    assert (values["invalid"], values["floor/invalid"]) == (0, 0)
    tolerances = {
        "precision": 0.03,
        "recall": 0.03,
        "density": 0.12,
        "coverage": 0.05,
        "bin_coverage": 0.05,
        "entropy_reduction": 0.02,
        "js_divergence": 0.03,
        "different_bins": 0.12,
        "sliced_wasserstein": 0.035 * image_size,
        "intrinsic_dimension": 0.15,
        "local_dimension": 0.1,
        "pairs_distance": 0.08,
    }
    for name, tolerance in tolerances.items():
        assert values[name] == pytest.approx(values[f"floor/{name}"], abs=tolerance), name
    for name in ("intrinsic_dimension", "floor/intrinsic_dimension"):
        assert values[name] == pytest.approx(2, abs=0.15), name
    assert values["coverage"] > 0.93
    assert values["density"] == pytest.approx(1, abs=0.2)


# ------------------------------------------------------------------ made-up collapses


def test_invalid_is_the_share_of_noise() -> None:
    shares = {"data": 0.0, "ring": 0.0, "half noise": 0.5, "noise": 1.0}
    assert {name: figures(name)["invalid"] for name in shares} == shares


# From the best to the worst; those in one entry, split by commas, are not compared with one another.
# Other metrics of the same functions are compared with their formulas in `test_coverage.py` and `test_histograms.py`.
ORDERS = {
    "coverage": [
        "data, no red circle",
        "half noise",
        "no upper left, left half",
        "ring, ten copies, line",
        "point",
        "noise",
    ],
    "recall": ["data, half noise", "no upper left, left half", "ring, line, ten copies, point", "noise"],
    "precision": ["data, ring, point", "half noise", "noise"],
    "bin_coverage": ["data, no red circle", "no upper left, left half", "ring", "ten copies", "line", "point", "noise"],
    "js_divergence": ["data, no red circle", "no upper left, left half", "ring", "ten copies, line", "point", "noise"],
    "sliced_wasserstein": ["data, no red circle", "ring", "no upper left, left half", "line", "point", "noise"],
    "intrinsic_dimension": ["data, left half", "ring, line", "ten copies", "point, noise"],
    "local_dimension": ["data, left half", "ring, line", "ten copies", "point, noise"],
    "pairs_distance": ["data, ring", "no red circle", "point", "noise"],
    "support_size": ["data, left half", "half noise", "ring", "line", "ten copies", "point", "noise"],
}
RISING = {"js_divergence", "sliced_wasserstein", "pairs_distance"}


@pytest.mark.parametrize("figure", ORDERS)
def test_collapses_come_in_the_right_order(figure: str) -> None:
    sign = 1 if figure in RISING else -1
    groups = [[sign * figures(name)[figure] for name in entry.split(", ")] for entry in ORDERS[figure]]
    for better, worse, entry in zip(groups[:-1], groups[1:], ORDERS[figure][1:], strict=True):
        assert max(better) <= min(worse), entry
    assert max(groups[0]) < min(groups[-1])


def test_shares_of_pairs_have_red_first() -> None:
    values = figures("point")
    assert {name: values[f"pairs/{name}"] for name in ("circle_circle", "circle_square", "square_square")} == {
        "circle_circle": 0,
        "circle_square": 0,
        "square_square": 1,
    }
    values = figures("no red circle")
    assert values["pairs/circle_circle"] == values["pairs/circle_square"] == 0
    assert values["pairs/square_circle"] == pytest.approx(0.5, abs=0.1), "red first"


def test_without_a_valid_image_every_metric_is_finite_and_the_worst() -> None:
    values = figures("noise")
    assert all(math.isfinite(value) for value in values.values())
    worst = {
        "invalid": 1,
        "bin_coverage": 0,
        "entropy_reduction": 1,
        "js_divergence": 1,
        "different_bins": 1,
        "pairs_distance": 1,
        "sliced_wasserstein": 22 * math.sqrt(2),
    }
    for name in ("precision", "recall", "density", "coverage", "support_size", "red/entropy", "pairs/circle_circle"):
        worst[name] = 0
    assert {name: values[name] for name in worst} == pytest.approx(worst)


@pytest.mark.parametrize("valid", [1, 2, 3, 6])
def test_a_few_valid_images_give_finite_metrics(valid: int) -> None:
    images = torch.cat([made_up("data")[:valid], made_up("noise")[: 30 - valid]])
    values = measure(TwoShapeMetrics(SIZE, RADIUS), images, real_images()[:60])
    assert all(math.isfinite(value) for value in values.values())
    assert values["invalid"] == pytest.approx(1 - valid / 30)
    assert values["coverage"] < values["floor/coverage"]


# ------------------------------------------------------------------ equal numbers, batches, processes, devices


def test_equal_numbers_are_compared() -> None:
    """Of more images of either kind no more count: copies of an image among few, as many as there are, are found."""
    for generated, real, number in ((40, 400, 40), (300, 60, 30), (300, 61, 30)):
        metric = TwoShapeMetrics(SIZE, RADIUS)
        values = measure(metric, made_up("data")[:generated], real_images()[:real])
        assert values["floor/support_size"] == values["support_size"] == number * (number - 1) / 2


def test_metrics_hardly_depend_on_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a test of more images than a validation would find less covered by the same generator."""
    monkeypatch.setattr(two_shapes, "COMPARED", 90)
    few, many = (
        measure(TwoShapeMetrics(SIZE, RADIUS), made_up("ring")[:number], real_images()[: 2 * number])
        for number in (90, 360)
    )
    tolerances = {"coverage": 0.1, "recall": 0.1, "precision": 0.1, "js_divergence": 0.05, "different_bins": 0.15}
    for name, tolerance in tolerances.items():
        assert many[name] == pytest.approx(few[name], abs=tolerance), name
        assert many[f"floor/{name}"] == pytest.approx(few[f"floor/{name}"], abs=tolerance), name
    assert many["floor/support_size"] > 90 * 89 / 2, "of all images"


@cache
def soft_images() -> tuple[Tensor, Tensor]:
    """Real and generated ones, not a stamp among the latter."""
    generated = made_up("data")[:120] * 0.9 + 0.05 * torch.randn(120, 3, SIZE, SIZE, generator=generator())
    return real_images()[:200], generated.clamp(-1, 1)


@pytest.mark.parametrize("first_share", [0.3, 0.0])
def test_metrics_do_not_depend_on_batches_order_or_processes(first_share: float) -> None:
    real, generated = soft_images()
    expected = measure(TwoShapeMetrics(SIZE, RADIUS), generated, real)
    shuffled = generated[torch.randperm(120, generator=generator(1))]
    assert of_two_processes(partial(TwoShapeMetrics, SIZE, RADIUS), real.flip(0), shuffled, first_share) == expected


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 64, 64), r"images of shape \(2, 3, 64, 64\): must be \(B, 3, 32, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"images of torch.uint8: must be floating point, in \[-1, 1\]"),
        (torch.full((2, 3, 32, 32), 255.0), r"images with values up to 255: must be in \[-1, 1\]"),
        (torch.full((2, 3, 32, 32), -1.5), r"images with values up to 1.5: must be in \[-1, 1\]"),
    ],
)
def test_wrong_images_are_named(images: Tensor, message: str) -> None:
    metric = TwoShapeMetrics(SIZE, RADIUS)
    for real in (True, False):
        with pytest.raises(ValueError, match=message):
            metric.update(images, real=real)


def test_too_few_images_are_named() -> None:
    data = real_images()
    for real, generated, message in (
        (data[:0], data[:50], "0 real images are too few to compare; at least 20 are needed"),
        (data[:19], data[:50], "19 real images are too few to compare; at least 20 are needed"),
        (data[:50], data[:0], "0 generated images are too few to compare; at least 10 are needed"),
        (made_up("noise"), data[:50], "real images: only 0 of 50 show a red and a blue object of radius 5"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(TwoShapeMetrics(SIZE, RADIUS), generated, real)
    metric = TwoShapeMetrics(SIZE, RADIUS)
    metric.update(data[:50], real=True)
    with pytest.raises(ValueError, match="0 generated images"):
        metric.compute()


def test_an_image_that_is_not_finite_is_invalid_not_an_error() -> None:
    images = made_up("data")[:50].clone()
    images[::2, 0, 0, 0] = float("nan")
    images[1::10, 0, 0, 0] = -float("inf")
    assert measure(TwoShapeMetrics(SIZE, RADIUS), images)["invalid"] == pytest.approx(0.6)


def test_a_radius_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.radius=12: two objects do not fit into 32 pixels"):
        TwoShapeMetrics(32, 12)

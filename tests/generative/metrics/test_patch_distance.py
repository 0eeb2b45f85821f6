"""The distance of patches: against scipy's, by formula, its floor, whatever the batches and processes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from generative.metrics.patch_distance import SIDE, PatchDistance
from generative.pixel_range import to_float
from generative.two_shapes import draw_scenes, render
from tests.generative.metrics.point_clouds import generator
from tests.generative.tiny import of_two_processes

SIZE = 16


def noise(number: int, seed: int = 0) -> Tensor:
    return torch.rand(number, 3, SIZE, SIZE, generator=generator(seed)) * 2 - 1


def pictures(number: int, seed: int = 0) -> Tensor:
    """Two shapes on white: many patches are the same."""
    return to_float(render(draw_scenes(number, SIZE, 2, generator(seed)), SIZE, 2))


def measure(real: Tensor, generated: Tensor, metric: PatchDistance | None = None) -> dict[str, float]:
    metric = PatchDistance(SIZE) if metric is None else metric
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return {name: float(value) for name, value in metric.compute().items()}


# ------------------------------------------------------------------ values


def by_scipy(first: Tensor, second: Tensor, metric: PatchDistance) -> float:
    """Patches cut out one by one."""
    places = [divmod(place, SIZE - SIDE + 1) for place in metric.places.tolist()]
    sides = []
    for images in (first, second):
        cut = [image[:, y : y + SIDE, x : x + SIDE].flatten() for image in images.numpy() for y, x in places]
        sides.append(np.stack(cut).astype(np.float64))
    of_directions = metric.directions.double().numpy().T
    return float(np.mean([wasserstein_distance(sides[0] @ one, sides[1] @ one) for one in of_directions]))


def test_distance_is_that_of_scipy() -> None:
    """All real images are one, so that it does not matter which are the reference."""
    metric = PatchDistance(SIZE)
    real, generated = noise(1).expand(10, -1, -1, -1), noise(5, 1)
    found = measure(real, generated, metric)
    assert found["patch_distance"] == pytest.approx(by_scipy(real[:5], generated, metric), rel=1e-5)
    assert found["floor/patch_distance"] == pytest.approx(0.0, abs=1e-6)


def test_the_floor_is_of_the_halves_of_the_real_images() -> None:
    metric = PatchDistance(SIZE)
    real = noise(4)
    found = measure(real, real[:2], metric)
    splits = [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]
    possible = [by_scipy(real[one], real[other], metric) for one, other in splits]
    assert min(abs(found["floor/patch_distance"] - value) for value in possible) < 1e-5


def test_directions_have_length_1_and_places_lie_in_the_image() -> None:
    metric = PatchDistance(SIZE)
    torch.testing.assert_close(metric.directions.norm(dim=0), torch.ones(metric.directions.shape[1]))
    assert metric.directions.shape[0] == 3 * 7 * 7
    assert 0 <= metric.places.min() <= metric.places.max() < (SIZE - 6) ** 2
    assert PatchDistance(SIDE).places.eq(0).all(), "only one patch fits"


def test_more_of_the_same_is_as_near_as_the_floor_and_anything_else_is_not() -> None:
    real = pictures(400)
    same = measure(real, pictures(200, 1))
    floor = same["floor/patch_distance"]
    assert 0.4 * floor < same["patch_distance"] < 2.5 * floor
    mirrored = pictures(200, 1).flip(1)  # red and blue change places: as likely in the data
    assert measure(real, mirrored)["patch_distance"] < 2.5 * floor
    moved = {
        "pale": pictures(200, 1) * 0.8 + 0.2,
        "noisy": (pictures(200, 1) + 0.3 * torch.randn(200, 3, SIZE, SIZE, generator=generator())).clamp(-1, 1),
        "larger": to_float(render(draw_scenes(200, SIZE, 4, generator(1)), SIZE, 4)),
        "other colours": pictures(200, 1).roll(1, 1),
    }
    for name, images in moved.items():
        found = measure(real, images)
        assert found["patch_distance"] > 3 * floor, name
        assert found["floor/patch_distance"] == pytest.approx(floor, rel=1e-5), name


def test_equal_numbers_are_compared() -> None:
    real, generated = noise(1).expand(6, -1, -1, -1), noise(1, 1).expand(50, -1, -1, -1)
    expected = measure(real, generated[:3])
    assert measure(real, generated) == pytest.approx(expected, rel=1e-5)
    assert measure(real.repeat(9, 1, 1, 1), generated[:3]) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------ batches, processes, precisions


@pytest.mark.parametrize("first_share", [0.0, 0.3])
def test_metrics_do_not_depend_on_batches_order_or_processes(first_share: float) -> None:
    real, generated = pictures(40), pictures(20, 1) * 0.9
    shuffled = generated[torch.randperm(20, generator=generator())]
    found = of_two_processes(partial(PatchDistance, SIZE), real.flip(0), shuffled, first_share)
    assert found == pytest.approx(measure(real, generated), rel=1e-5)


def test_another_seed_draws_other_patches() -> None:
    real, generated = pictures(40), pictures(20, 1) * 0.9
    first, second = (measure(real, generated, PatchDistance(SIZE, seed=seed)) for seed in (0, 1))
    assert second["patch_distance"] != pytest.approx(first["patch_distance"], rel=1e-5)


def test_autocast_does_not_round_the_projections() -> None:
    real, generated = noise(1).expand(8, -1, -1, -1), noise(4, 1)
    expected = measure(real, generated)
    with torch.autocast("cpu", torch.bfloat16):
        found = measure(real, generated)
    assert found == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------ what is refused


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^image_size=6: must be at least 7$"):
        PatchDistance(6)


@pytest.mark.parametrize("images", [torch.zeros(2, 1, SIZE, SIZE), torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)])
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"^images of shape \(.+\) and torch\..+: must be floating point \(B, 3, 16, 16\)$"
    ):
        PatchDistance(SIZE).update(images, real=True)


@pytest.mark.parametrize(("real", "generated"), [(0, 4), (3, 4), (4, 1)])
def test_too_few_images_are_refused(real: int, generated: int) -> None:
    metric = PatchDistance(SIZE)
    for number, is_real in ((real, True), (generated, False)):
        if number:
            metric.update(noise(number), real=is_real)
    with pytest.raises(ValueError, match=rf"^{real} real and {generated} generated images: must be at least 4 and 2$"):
        metric.compute()


def test_images_that_are_not_finite_give_nan() -> None:
    generated = noise(4, 1)
    generated[0, 0, :, :] = math.nan
    assert math.isnan(measure(noise(8), generated)["patch_distance"])

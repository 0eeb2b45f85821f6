"""Crops, augmentation and normalisation, compared with torchvision and formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torchvision.transforms import v2

from classification.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    EvalTransform,
    TrainTransform,
    normalize,
)

PADDED: dict[str, Any] = {"crop": "padded", "padding": 2, "flip": 0.5}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def seeded(transform: Any, seed: int, *arguments: Any) -> Tensor:  # noqa: ANN401  # any transform
    torch.manual_seed(seed)
    out: Tensor = transform(*arguments)
    return out


# ------------------------------------------------------------------ to train on


@pytest.mark.parametrize("size", [8, 20])
def test_resized_crops_are_torchvisions(size: int) -> None:
    image = noise(3, 16, 12)
    scale, ratio = (0.3, 0.9), (0.5, 2.0)
    ours = TrainTransform(Augmentation(size, scale=scale, ratio=ratio, flip=0.3))
    theirs = v2.Compose([v2.RandomResizedCrop(size, scale, ratio, antialias=True), v2.RandomHorizontalFlip(0.3)])
    for seed in range(5):
        out = seeded(ours, seed, image)
        assert out.shape == (3, size, size)
        assert out.dtype == torch.uint8
        assert torch.equal(out, seeded(theirs, seed, image))


def test_padded_crops_are_windows_of_the_image_padded_with_black() -> None:
    image = noise(3, 6, 6).clamp(min=1)
    padded = torch.zeros(3, 10, 10, dtype=torch.uint8)
    padded[:, 2:8, 2:8] = image
    windows = {padded[:, y : y + 6, x : x + 6].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    transform = TrainTransform(Augmentation(6, "padded", padding=2, flip=0))
    found = [windows[seeded(transform, seed, image).numpy().tobytes()] for seed in range(300)]
    assert len(set(found)) == 25, "each of them, sooner or later"


def test_images_are_mirrored_as_often_as_asked_for() -> None:
    image, number, flip = noise(3, 6, 6), 400, 0.25
    transform = TrainTransform(Augmentation(6, "padded", flip=flip))
    mirrored = 0
    for seed in range(number):
        out = seeded(transform, seed, image)
        mirrored += torch.equal(out, image.flip(-1))
        assert torch.equal(out, image) or torch.equal(out, image.flip(-1))
    assert abs(mirrored / number - flip) <= 4 * math.sqrt(flip * (1 - flip) / number)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (3, 8, 8)),
        ({"padding": 0}, (3, 8, 8)),
        ({"padding": 0}, (3, 8, 13)),
        ({"flip": 0.0}, (3, 8, 8)),
        ({"padding": 3}, (3, 19, 16)),
    ],
)
@pytest.mark.parametrize("repeats", [1, 3])
def test_batched_transforms_equal_those_of_single_images(
    settings: dict[str, Any], shape: tuple[int, ...], repeats: int
) -> None:
    images, seeds = noise(6, *shape), [3, 1, 4, 1, 5, 2**63 - 1]
    transform = TrainTransform(Augmentation(8, **(PADDED | settings)))
    assert transform.settings.is_batched
    expected = []
    for image, seed in zip(images, seeds, strict=True):
        torch.manual_seed(seed)
        expected += [transform(image) for _ in range(repeats)]
    assert torch.equal(transform.batch(images, seeds, repeats), torch.stack(expected))


@pytest.mark.parametrize(("augment", "kind"), [("trivial", v2.TrivialAugmentWide), ("rand", v2.RandAugment)])
def test_automatic_augmentations_are_torchvisions(augment: Any, kind: type[v2.Transform]) -> None:  # noqa: ANN401  # a literal
    image = noise(3, 8, 8)
    transform = TrainTransform(Augmentation(8, "padded", flip=0, augment=augment))
    outs = [seeded(transform, seed, image) for seed in range(8)]
    assert all(torch.equal(out, seeded(kind(), seed, image)) for seed, out in enumerate(outs))
    assert any(not torch.equal(out, image) for out in outs)


def test_erased_areas_have_the_mean_colour() -> None:
    image = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    fill = (0.25, 0.5, 0.75)
    transform = TrainTransform(Augmentation(16, "padded", flip=0, erasing=0.6, fill=fill))
    erased = [seeded(transform, seed, image) for seed in range(200)]
    changed = [(out != image).any(0) for out in erased]
    count = sum(bool(one.any()) for one in changed)
    assert abs(count / 200 - 0.6) < 4 * math.sqrt(0.6 * 0.4 / 200)
    for out, where in zip(erased, changed, strict=True):
        values = (out / 255)[:, where] - torch.tensor(fill)[:, None]
        assert values.abs().max() <= 0.5 / 255 + 1e-6 if where.any() else torch.equal(out, image)


@pytest.mark.parametrize("size", [10, 40])
def test_images_are_resized_before_a_padded_crop(size: int) -> None:
    image = noise(3, 20, 30)
    transform = TrainTransform(Augmentation(size, "padded", flip=0))
    resized = tv.resize(image, [size], antialias=True)
    assert resized.shape == (3, size, 3 * size // 2)
    windows = [resized[:, :, x : x + size] for x in range(size // 2 + 1)]
    for seed in range(10):
        assert any(torch.equal(seeded(transform, seed, image), window) for window in windows)


def test_the_centre_of_very_long_images_is_used() -> None:
    """Resized as a whole, this one would have 3 x 224 x 2,240,000 pixels."""
    image = noise(3, 1, 10_000)
    assert TrainTransform(Augmentation(224, "padded", flip=0))(image).shape == (3, 224, 224)
    middle = EvalTransform(20, 20)(image)
    assert torch.equal(middle, EvalTransform(20, 20)(image[..., 4990:5010]))


# ------------------------------------------------------------------ to evaluate on


@pytest.mark.parametrize(("shape", "resize"), [((40, 30), 16), ((9, 12), 16), ((20, 14), 12)])
def test_the_centre_is_cropped(shape: tuple[int, int], resize: int) -> None:
    image = noise(3, *shape)
    expected = tv.center_crop(tv.resize(image, [resize], antialias=True), [12, 12])
    assert torch.equal(EvalTransform(12, resize)(image), expected)
    batch = torch.stack([image, image.flip(-1)])
    assert torch.equal(EvalTransform(12, resize)(batch)[0], expected)


# ------------------------------------------------------------------ for the network


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_colours_are_normalised_as_torchvision_does(dtype: torch.dtype) -> None:
    images, mean, std = noise(4, 3, 5, 6), torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    values = v2.functional.to_dtype(images, torch.float32, scale=True)
    expected = v2.functional.normalize(values, list(IMAGENET_MEAN), list(IMAGENET_STD)).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for given in (images, values):
        before = given.clone()
        torch.testing.assert_close(
            normalize(given, mean.to(dtype), std.to(dtype)), expected, rtol=tolerance, atol=tolerance
        )
        assert torch.equal(given, before)

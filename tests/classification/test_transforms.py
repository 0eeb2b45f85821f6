"""Crops, augmentation and normalisation, compared with torchvision and formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torch._utils import ExceptionWrapper
from torchvision.transforms import v2

from classification.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    EvalTransform,
    TrainTransform,
    denormalize,
    normalize,
)
from coordconv_apps.data.image_files import ImageFileError
from coordconv_apps.utils.errors import is_user_error

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
        out = seeded(ours, seed, image, "it")
        assert out.shape == (3, size, size)
        assert out.dtype == torch.uint8
        assert torch.equal(out, seeded(theirs, seed, image))


def test_padded_crops_are_windows_of_the_picture_in_black() -> None:
    image = noise(3, 6, 6).clamp(min=1)
    padded = torch.zeros(3, 10, 10, dtype=torch.uint8)
    padded[:, 2:8, 2:8] = image
    windows = {padded[:, y : y + 6, x : x + 6].numpy().tobytes(): (y, x) for y in range(5) for x in range(5)}
    transform = TrainTransform(Augmentation(6, "padded", padding=2, flip=0))
    found = [windows[seeded(transform, seed, image, "it").numpy().tobytes()] for seed in range(300)]
    assert len(set(found)) == 25, "each of them, sooner or later"


@pytest.mark.parametrize("flip", [0.0, 0.25, 1.0])
def test_images_are_mirrored_as_often_as_asked_for(flip: float) -> None:
    image, number = noise(3, 6, 6), 400
    transform = TrainTransform(Augmentation(6, "padded", flip=flip))
    mirrored = 0
    for seed in range(number):
        out = seeded(transform, seed, image, "it")
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
def test_a_batch_at_once_is_the_same_as_one_by_one(
    settings: dict[str, Any], shape: tuple[int, ...], repeats: int
) -> None:
    images, seeds = noise(6, *shape), [3, 1, 4, 1, 5, 2**63 - 1]
    transform = TrainTransform(Augmentation(8, **(PADDED | settings)))
    assert transform.settings.is_batched
    expected = []
    for image, seed in zip(images, seeds, strict=True):
        torch.manual_seed(seed)
        expected += [transform(image, "it") for _ in range(repeats)]
    assert torch.equal(transform.batch(images, seeds, repeats, "it"), torch.stack(expected))


@pytest.mark.parametrize("settings", [{"crop": "resized"}, {"augment": "trivial"}, {"erasing": 0.1}])
def test_what_is_not_done_at_once(settings: dict[str, Any]) -> None:
    assert not Augmentation(8, **(PADDED | settings)).is_batched


@pytest.mark.parametrize(("augment", "kind"), [("trivial", v2.TrivialAugmentWide), ("rand", v2.RandAugment)])
def test_automatic_augmentations_are_torchvisions(augment: Any, kind: type[v2.Transform]) -> None:  # noqa: ANN401  # a literal
    image = noise(3, 8, 8)
    transform = TrainTransform(Augmentation(8, "padded", flip=0, augment=augment))
    outs = [seeded(transform, seed, image, "it") for seed in range(8)]
    assert all(torch.equal(out, seeded(kind(), seed, image)) for seed, out in enumerate(outs))
    assert any(not torch.equal(out, image) for out in outs)


def test_what_is_erased_becomes_zero_for_the_network() -> None:
    image = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    fill, std = (0.25, 0.5, 0.75), (0.2, 0.2, 0.2)
    transform = TrainTransform(Augmentation(16, "padded", flip=0, erasing=0.6, fill=fill))
    erased = [seeded(transform, seed, image, "it") for seed in range(200)]
    changed = [(out != image).any(0) for out in erased]
    count = sum(bool(one.any()) for one in changed)
    assert abs(count / 200 - 0.6) < 4 * math.sqrt(0.6 * 0.4 / 200)
    for out, where in zip(erased, changed, strict=True):
        values = normalize(out[None], fill, std)[0][:, where]
        assert values.abs().max() <= 0.5 / 255 / 0.2 + 1e-6 if where.any() else torch.equal(out, image)


def test_larger_pictures_are_resized_before_a_padded_crop() -> None:
    image = noise(3, 20, 30)
    transform = TrainTransform(Augmentation(10, "padded", flip=0))
    resized = tv.resize(image, [10], antialias=True)
    assert resized.shape == (3, 10, 15)
    windows = [resized[:, :, x : x + 10] for x in range(6)]
    for seed in range(10):
        assert any(torch.equal(seeded(transform, seed, image, "it"), window) for window in windows)


def test_pictures_smaller_than_the_crop_are_named() -> None:
    transform = TrainTransform(Augmentation(10, **PADDED))
    message = (
        "data.image_size=10: must be at most 8 for my/cat.png, which has 12 x 8 pixels (data.crop=resized enlarges"
        " images)"
    )
    with pytest.raises(ValueError, match="my/cat") as caught:
        transform(noise(3, 8, 12), "my/cat.png")
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="my/cat") as caught:
        transform.batch(noise(2, 3, 8, 12), [0, 1], 1, "my/cat.png")
    assert str(caught.value) == message


# ------------------------------------------------------------------ to evaluate on


@pytest.mark.parametrize(("shape", "resize"), [((40, 30), 16), ((9, 12), 16), ((16, 16), 16), ((20, 14), None)])
def test_the_middle_is_cut_out(shape: tuple[int, int], resize: int | None) -> None:
    image = noise(3, *shape)
    resized = image if resize is None else tv.resize(image, [resize], antialias=True)
    expected = tv.center_crop(resized, [12, 12])
    assert torch.equal(EvalTransform(12, resize)(image, "it"), expected)
    batch = torch.stack([image, image.flip(-1)])
    assert torch.equal(EvalTransform(12, resize)(batch, "it")[0], expected)


def test_pictures_smaller_than_the_middle_are_named() -> None:
    with pytest.raises(ValueError, match="my/cat") as caught:
        EvalTransform(10, None)(noise(3, 20, 8), "my/cat.png")
    assert str(caught.value) == (
        "data.eval_size=10: must be at most 8 for my/cat.png, which has 8 x 20 pixels (data.eval_resize enlarges"
        " images)"
    )


def test_a_worker_process_hands_the_message_on_without_its_traceback() -> None:
    with pytest.raises(ImageFileError) as caught:
        EvalTransform(9, None)(noise(3, 8, 12), "a picture")
    try:
        raise caught.value
    except ImageFileError:
        handed_on = ExceptionWrapper(where="in DataLoader worker process 0")
    assert handed_on.exc_msg.count("\n") > 1
    with pytest.raises(ImageFileError) as again:
        handed_on.reraise()
    assert str(again.value) == str(caught.value)
    assert is_user_error(again.value, running=True)


# ------------------------------------------------------------------ for the network


def test_colours_are_normalised_as_torchvision_does() -> None:
    images = noise(4, 3, 5, 6)
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(IMAGENET_MEAN), list(IMAGENET_STD))])
    network = normalize(images, IMAGENET_MEAN, IMAGENET_STD)
    assert network.dtype == torch.float32
    torch.testing.assert_close(network, steps(images))
    assert images.dtype == torch.uint8
    torch.testing.assert_close(denormalize(network, IMAGENET_MEAN, IMAGENET_STD), images / 255)

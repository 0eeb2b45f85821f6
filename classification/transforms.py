"""Crops, augmentation and normalisation of images.

Crops and augmentation work on uint8, which takes a quarter of the memory of float32; batches are normalised on the
device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from coordconv_apps.utils.argument_checks import COUNT, FRACTION, Allowed, one_of

Crop = Literal["resized", "padded"]
Augment = Literal["none", "trivial", "rand"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue, in [0, 1], as torchvision's weights expect them."""

Triple = tuple[float, float, float]

_AUGMENTS: dict[Augment, type[v2.Transform]] = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}


def _is_range(pair: tuple[float, ...], most: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= most


AUGMENTATION_ALLOWED: dict[str, Allowed] = {
    "crop": one_of(Crop),
    "augment": one_of(Augment),
    "padding": COUNT,
    "scale": (lambda value: _is_range(value, 1), "two numbers in (0, 1], the smaller one first"),
    "ratio": (lambda value: _is_range(value, float("inf")), "two numbers above 0, the smaller one first"),
    **dict.fromkeys(("flip", "erasing"), FRACTION),
}
"""Allowed values of the arguments of `Augmentation`."""


class Augmentation(NamedTuple):
    """Settings of the augmentation: arguments of `classification.data.ClassificationData`.

    Attributes:
        size: Height and width of the result, in pixels.
        crop: With "padded", the shorter side of the image is resized to ``size`` before the border is added.
        augment: "trivial": TrivialAugmentWide (Mueller and Hutter, 2021). "rand": RandAugment (Cubuk et al., 2020).
        erasing: Probability that a rectangle is erased (Zhong et al., 2020).
        fill: Colour of the erased rectangle, in [0, 1].
    """

    size: int
    crop: Crop = "resized"
    padding: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    augment: Augment = "none"
    erasing: float = 0.0
    fill: Triple = IMAGENET_MEAN

    @property
    def is_batched(self) -> bool:
        """True if `crop_padded` can do the whole augmentation, for a batch at once."""
        return self.crop == "padded" and self.augment == "none" and not self.erasing


class TrainTransform:
    """Augment training images by ``settings``."""

    def __init__(self, settings: Augmentation) -> None:
        self.settings = settings
        size = (settings.size, settings.size)
        steps: list[v2.Transform] = [
            v2.RandomResizedCrop(size, settings.scale, settings.ratio)
            if settings.crop == "resized"
            else v2.RandomCrop(size, settings.padding)
        ]
        if settings.flip:
            steps.append(v2.RandomHorizontalFlip(settings.flip))
        if settings.augment != "none":
            steps.append(_AUGMENTS[settings.augment]())
        if settings.erasing:
            # The mean, which normalising turns into zero, up to rounding.
            steps.append(v2.RandomErasing(settings.erasing, value=[round(255 * mean) for mean in settings.fill]))
        self._steps = v2.Compose(steps)

    def __call__(self, image: Tensor) -> Tensor:
        """Augment an image, uint8 ``(3, H, W)`` to ``(3, size, size)``, with torch's global generator."""
        if self.settings.crop == "padded":
            image = resize_shorter(image, self.settings.size)
        out: Tensor = self._steps(image)
        return out

    def batch(self, images: Tensor, seeds: Sequence[int], repeats: int) -> Tensor:
        """Augment a batch at once, with the result of seeding torch's global generator and calling image by image.

        Args:
            images: uint8 ``(B, 3, H, W)``.
            seeds: A seed for each image.
            repeats: Number of augmented copies of each image.

        Returns:
            uint8 ``(B * repeats, 3, size, size)``; copies of an image stand side by side.
        """
        assert self.settings.is_batched
        pad, size = self.settings.padding, self.settings.size
        images = resize_shorter(images, size)
        spare_y, spare_x = (side + 2 * pad - size for side in images.shape[-2:])
        generator = torch.Generator()
        drawn = []
        for seed in seeds:
            generator.manual_seed(seed)
            for _ in range(repeats):  # in the order of torchvision's transforms
                top = int(torch.randint(0, spare_y + 1, (), generator=generator)) if spare_y else 0
                left = int(torch.randint(0, spare_x + 1, (), generator=generator)) if spare_x else 0
                flip = bool(self.settings.flip and torch.rand(1, generator=generator) < self.settings.flip)
                drawn.append((top, left, flip))
        if repeats > 1:
            images = images.repeat_interleave(repeats, 0)
        return crop_padded(images, torch.tensor(drawn, dtype=torch.int64), pad, size)


def crop_padded(images: Tensor, drawn: Tensor, padding: int, size: int) -> Tensor:
    """Crop a square from each image and its black border, and flip some.

    Args:
        images: uint8 ``(B, 3, H, W)``.
        drawn: int64 ``(B, 3)``: top and left of the square in the padded image, in pixels, and 1 for a flip.
        padding: Width of the border, in pixels.
        size: Side of the square, in pixels.
    """
    steps = torch.arange(size)
    rows = drawn[:, :1] + steps
    columns = drawn[:, 1:2] + torch.where(drawn[:, 2:] > 0, steps.flip(0), steps)
    padded = F.pad(images, (padding,) * 4)
    batch, channels = torch.arange(len(images)), torch.arange(images.shape[1])
    return padded[batch[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]


@dataclass(frozen=True)
class EvalTransform:
    """Resize images and crop the centre.

    Attributes:
        size: Height and width of the result, in pixels.
        resize: Size of the shorter side before the crop, in pixels, at least ``size``.
    """

    size: int
    resize: int

    def __call__(self, images: Tensor) -> Tensor:
        """Transform images, uint8 ``(..., 3, H, W)`` to ``(..., 3, size, size)``."""
        out: Tensor = tv.center_crop(resize_shorter(images, self.resize), [self.size, self.size])
        return out


def default_eval_resize(crop: Crop, eval_size: int) -> int:
    """Return the size of the shorter side with which evaluation sees what training with ``crop`` sees.

    With "padded", training sees the whole shorter side; with "resized", random parts of the image, for which
    torchvision's recipes evaluate at 232 to 224 pixels.

    >>> default_eval_resize("padded", 32), default_eval_resize("resized", 224)
    (32, 232)
    """
    return eval_size if crop == "padded" else round(eval_size * 232 / 224)


def resize_shorter(images: Tensor, size: int) -> Tensor:
    """Resize (bilinear, anti-aliased) uint8 ``(..., 3, H, W)`` so that the shorter side has ``size`` pixels.

    The ends of images that are more than 20 times as long as wide are cut off: resized, they might not fit into memory.
    """
    height, width = images.shape[-2:]
    shorter, longest = min(height, width), 20 * min(height, width)
    if max(height, width) > longest:
        images = tv.center_crop(images, [min(height, longest), min(width, longest)])
    if shorter == size:
        return images
    out: Tensor = tv.resize(images, [size], antialias=True)
    return out


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise images ``(B, 3, H, W)``, uint8 or floats in [0, 1], by ``mean`` and ``std``, each ``(3,)``.

    Returns:
        ``(images - mean) / std`` of images in [0, 1], in the data type of ``mean``.

    >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    >>> normalize(white, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.5, 0.25, 0.125])).flatten()
    tensor([1., 2., 4.])
    """
    most = 1 if images.is_floating_point() else 255
    shift, scale = (most * values.float().view(3, 1, 1) for values in (mean, std))
    return (images.float() - shift).div_(scale).to(mean.dtype)

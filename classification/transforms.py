"""From pictures of any size to batches for a network: crops and augmentation.

What is done to a single picture takes and gives uint8, a quarter of the bytes of float32; a batch becomes floating
point numbers on the device where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from coordconv_apps.data.image_files import ImageFileError

Crop = Literal["resized", "padded"]
Augment = Literal["none", "trivial", "rand"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue, 0 to 1: those of torchvision's weights."""

Triple = tuple[float, float, float]

_AUGMENTS: dict[Augment, type[v2.Transform] | None] = {
    "none": None,
    "trivial": v2.TrivialAugmentWide,
    "rand": v2.RandAugment,
}


class Augmentation(NamedTuple):
    """What is done to pictures to train on.

    Attributes:
        size: Height and width of the result, in pixels.
        crop: "resized": a random part of random size and shape, resized. "padded": the shorter side of larger pictures
            is resized to ``size``, a black border is added, and a random square cut out.
        padding: Width of that border, in pixels.
        scale: Least and greatest share of the area of a "resized" part.
        ratio: Least and greatest width : height of it.
        flip: Probability to mirror left to right.
        augment: "trivial": TrivialAugmentWide (Mueller and Hutter, 2021). "rand": RandAugment (Cubuk et al., 2020).
        erasing: Probability to erase a rectangle (Zhong et al., 2020).
        fill: What is erased becomes this colour, 0 to 1.
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
        """Whether `crop_padded` does all of it."""
        return self.crop == "padded" and self.augment == "none" and not self.erasing


class TrainTransform:
    """Augments one picture, with torch's global generator.

    Args:
        settings: What to do.
    """

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
        augment = _AUGMENTS[settings.augment]
        if augment is not None:
            steps.append(augment())
        if settings.erasing:
            # The mean, which normalising makes zero, to a rounding: as if a zero was put there afterwards.
            steps.append(v2.RandomErasing(settings.erasing, value=[round(255 * mean) for mean in settings.fill]))
        self._steps = v2.Compose(steps)

    def __call__(self, image: Tensor, name: str) -> Tensor:
        """Augments a picture.

        Args:
            image: uint8 ``(3, H, W)``.
            name: Which picture it is, for messages.

        Returns:
            uint8 ``(3, size, size)``.

        Raises:
            ValueError: The picture is too small to cut a "padded" crop from it.
        """
        if self.settings.crop == "padded":
            image = self.shrunk(image, name)
        out: Tensor = self._steps(image)
        return out

    def shrunk(self, images: Tensor, name: str) -> Tensor:
        """Resizes the shorter side of larger pictures to ``size``.

        Args:
            images: uint8 ``(..., 3, H, W)``.
            name: Which picture it is, for messages.

        Returns:
            uint8 ``(..., 3, H', W')``.

        Raises:
            ValueError: They are smaller.
        """
        check_large_enough(images, self.settings.size, "data.image_size", "data.crop=resized", name)
        return resize_shorter(images, self.settings.size)

    def batch(self, images: Tensor, seeds: Sequence[int], repeats: int, name: str) -> Tensor:
        """Augments pictures at once, each as calls of this do with torch's global generator seeded before the first.

        Args:
            images: uint8 ``(B, 3, H, W)``.
            seeds: A seed for each.
            repeats: How many times to augment each.
            name: What the pictures are, for messages.

        Returns:
            uint8 ``(B * repeats, 3, size, size)``: those of one picture side by side.

        Raises:
            ValueError: They are too small, see above.
        """
        assert self.settings.is_batched
        images, pad, size = self.shrunk(images, name), self.settings.padding, self.settings.size
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
    """Cuts a square out of each image and its black border, and mirrors some.

    Args:
        images: uint8 ``(B, 3, H, W)``.
        drawn: int64 ``(B, 3)``: upper and left side of the square, in pixels from the border's, and 1 to mirror it.
        padding: Width of the border, in pixels.
        size: Side of the square, in pixels.

    Returns:
        uint8 ``(B, 3, size, size)``.
    """
    steps = torch.arange(size)
    rows = drawn[:, :1] + steps
    columns = drawn[:, 1:2] + torch.where(drawn[:, 2:] > 0, steps.flip(0), steps)
    padded = F.pad(images, (padding,) * 4)
    batch, channels = torch.arange(len(images)), torch.arange(images.shape[1])
    return padded[batch[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None]]


class EvalTransform:
    """Cuts the middle out of pictures.

    Args:
        size: Height and width of the result, in pixels.
        resize: The shorter side is resized to so many pixels before; None leaves pictures as they are.
    """

    def __init__(self, size: int, resize: int | None) -> None:
        self.size = size
        self.resize = resize

    def __call__(self, images: Tensor, name: str) -> Tensor:
        """Cuts the middle out.

        Args:
            images: uint8 ``(..., 3, H, W)``.
            name: Which picture it is, for messages.

        Returns:
            uint8 ``(..., 3, size, size)``.

        Raises:
            ValueError: The picture is smaller, and there is no ``resize``.
        """
        if self.resize is not None:
            images = resize_shorter(images, self.resize)
        check_large_enough(images, self.size, "data.eval_size", "data.eval_resize", name)
        out: Tensor = tv.center_crop(images, [self.size, self.size])
        return out


def resize_shorter(images: Tensor, size: int) -> Tensor:
    """Resizes (bilinear, anti-aliased) uint8 ``(..., 3, H, W)`` so that the shorter side has ``size`` pixels."""
    if min(images.shape[-2:]) == size:
        return images
    out: Tensor = tv.resize(images, [size], antialias=True)
    return out


def check_large_enough(images: Tensor, size: int, argument: str, instead: str, name: str) -> None:
    """Checks that a square fits into pictures.

    Args:
        images: ``(..., H, W)``.
        size: Side of the square, in pixels.
        argument: What the user calls it, for messages.
        instead: Which argument resizes pictures to it.
        name: Which picture it is.

    Raises:
        ImageFileError: It does not; a `ValueError`.
    """
    height, width = images.shape[-2:]
    if min(height, width) < size:
        raise ImageFileError(
            f"{argument}={size}: must be at most {min(height, width)} for {name}, which has {width} x {height} pixels"
            f" ({instead} enlarges pictures)"
        )


def to_network(images: Tensor, mean: Triple, std: Triple) -> Tensor:
    """Pixels as a network takes them.

    Args:
        images: uint8 ``(B, 3, H, W)``.
        mean: Of red, green and blue, 0 to 1.
        std: Their standard deviations.

    Returns:
        float32 ``(B, 3, H, W)``: ``(images / 255 - mean) / std``.
    """
    shift, scale = ([255 * value for value in values] for values in (mean, std))
    pixels = images.to(torch.float32)
    for channel in range(3):  # numbers instead of tensors: nothing waits for a device
        pixels[:, channel].sub_(shift[channel]).div_(scale[channel])
    return pixels


def to_pixels(images: Tensor, mean: Triple, std: Triple) -> Tensor:
    """The other way round than `to_network`, to look at: float32 ``(B, 3, H, W)``, 0 to 1."""
    shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images * scale + shift).clamp(0, 1)

"""The two-shape dataset: a red and a blue object on white, each a circle or a square (Liu et al., 2018, section 5)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

COLOURS = ("red", "blue")
"""Names of the two objects, in the order of the axis of objects everywhere."""

SHAPES = ("circle", "square")
"""Names of the numbers 0 and 1 of a shape."""

_BATCH = 128
"""Images rendered at a time: they stay in the cache."""


class Scenes(NamedTuple):
    """What is in each of ``N`` images.

    Attributes:
        centers: int64 ``(N, 2, 2)``: for the red and the blue object x and y of its centre, in pixels.
        shapes: int64 ``(N, 2)``: for the red and the blue object the number of its shape in `SHAPES`.
    """

    centers: Tensor
    shapes: Tensor

    def at(self, index: Tensor | slice) -> Scenes:
        """Some of the scenes.

        Args:
            index: int64 ``(n,)``, numbers of scenes, or a slice.
        """
        return Scenes(self.centers[index], self.shapes[index])


def check_size(image_size: int, radius: int) -> None:
    """Raises `ValueError` if two objects of ``radius`` do not fit into an image.

    Args:
        image_size: Height and width of an image, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
    """
    if radius < 1:
        raise ValueError(f"data.radius={radius}: must be an integer of at least 1")
    places = image_size - 2 * radius
    if places < 1 or 2 * (places - 1) ** 2 < (2 * radius) ** 2:
        largest = max((r for r in range(1, image_size) if _fits(image_size, r)), default=0)
        allowed = f"must be at most {largest}" if largest else "no radius does"
        raise ValueError(f"data.radius={radius}: two objects do not fit into {image_size} pixels, {allowed}")


def _fits(image_size: int, radius: int) -> bool:
    return image_size - 2 * radius >= 1 and 2 * (image_size - 2 * radius - 1) ** 2 >= (2 * radius) ** 2


def draw_scenes(number: int, image_size: int, radius: int, generator: torch.Generator) -> Scenes:
    """Draws scenes as in the dataset: all pairs of places that are far enough apart have the same probability.

    Centres are integers in ``[radius, image_size - radius)``, the two of a scene at least ``2 * radius`` apart
    (Euclidean). Each object is a circle or a square with probability 1/2.

    Args:
        number: Scenes to draw.
        image_size: Height and width of an image, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
        generator: Source of random numbers, on the CPU.

    Returns:
        Scenes, ``N = number``.

    Raises:
        ValueError: If two objects do not fit into an image.
    """
    check_size(image_size, radius)
    places = image_size - 2 * radius
    # From one centre to the other there are few ways: draw the way, as often as pairs of places have it, then where.
    step = torch.arange(1 - places, places)
    way = torch.cartesian_prod(step, step)
    pairs = (places - way.abs()).prod(1) * (way.square().sum(1) >= (2 * radius) ** 2)
    way = way[torch.multinomial(pairs.double(), number, replacement=True, generator=generator)]
    room = places - way.abs()
    first = (torch.rand(number, 2, generator=generator, dtype=torch.float64) * room).long() + (-way).clamp(min=0)
    centers = torch.stack([first, first + way], 1) + radius
    return Scenes(centers, torch.randint(2, (number, 2), generator=generator))


def stamps(radius: int) -> Tensor:
    """The two shapes: uint8 ``(2, 2 * radius + 1, 2 * radius + 1)``, 255 in the object and 0 around it."""
    axis = torch.arange(-radius, radius + 1)
    circle = axis.square()[:, None] + axis.square() <= radius**2
    return torch.stack([circle, torch.ones_like(circle)]).byte() * 255


def render(scenes: Scenes, image_size: int, radius: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Images of scenes, without anti-aliasing. Where objects overlap, red is seen.

    Args:
        scenes: What is in them, ``N`` images.
        image_size: Height and width, in pixels.
        radius: Of a circle; half the side of a square; in pixels.
        dtype: ``torch.uint8`` for values of 0 and 255, ``torch.float32`` for -1 and 1.

    Returns:
        ``(N, 3, H, W)``, red, green and blue.
    """
    number, device = len(scenes.centers), scenes.centers.device
    windows, length, origin = _windows(image_size, radius, dtype, device)
    images = torch.empty(number, 3, image_size, image_size, dtype=dtype, device=device)
    planes = images.view(3 * number, image_size**2)
    x, y = (scenes.centers - radius).unbind(-1)
    red, blue = (origin - y * image_size - x + scenes.shapes * length).unbind(1)
    # Channels start as: the red object, all but the blue one, all but the red one. The last is as it should be.
    chosen = torch.stack([red, blue + 2 * length, red + 2 * length], 1).flatten()
    for start in range(0, number, _BATCH):
        part = slice(3 * start, 3 * (start + _BATCH))
        torch.index_select(windows, 0, chosen[part], out=planes[part])
        first, second, third = images[start : start + _BATCH].unbind(1)
        torch.minimum(second, third, out=second)
        torch.maximum(first, second, out=first)
    return images


@lru_cache(maxsize=4)
def _windows(image_size: int, radius: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, int, int]:
    """Every single shape at every place, bright on dark and then dark on bright, as views of a few rows of memory.

    An image is a row of ``H * W`` pixels in memory. With a shape written once into a longer row, each of that row's
    windows of this length is an image of the shape at another place.

    Returns:
        ``(windows, H * W)``; how many windows one shape is after the other, and all of them inverted after both; and
        the window of a shape whose upper left corner is at (0, 0). A pixel further to the right or down, it is one
        window or ``W`` windows before that one.
    """
    side, pixels = 2 * radius + 1, image_size**2
    origin = (image_size - side) * (image_size + 1)
    length = origin + pixels
    rows = torch.zeros(2, length, dtype=torch.uint8)
    rows.as_strided((2, side, side), (length, image_size, 1), origin).copy_(stamps(radius))
    rows = torch.cat([rows, ~rows]).flatten()
    rows = as_float(rows) if dtype == torch.float32 else rows
    return rows.to(device).unfold(0, pixels, 1), length, origin


def as_float(images: Tensor) -> Tensor:
    """Images as networks take them.

    Args:
        images: uint8, 0 to 255.

    Returns:
        float32 of the same shape, -1 to 1.
    """
    return images.float().div_(127.5).sub_(1)

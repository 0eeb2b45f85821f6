"""The two-shape dataset: a red and a blue object on white, each a circle or a square (Liu et al., 2018, section 5)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.argument_checks import check_at_least
from generative.pixel_range import to_float

COLOURS = ("red", "blue")  # names of the two objects; every axis of objects has this order
SHAPES = ("circle", "square")  # names of the shapes 0 and 1
_CHUNK = 128  # images rendered at a time, few enough for the cache


class Scenes(NamedTuple):
    """The objects in ``N`` images."""

    centers: Tensor  # int64 (N, 2, 2): x and y of the centres of the red and the blue object, in pixels
    shapes: Tensor  # int64 (N, 2): the shapes of the red and the blue object, as indices into SHAPES

    def at(self, index: Tensor | slice) -> Scenes:
        """Select some of the scenes."""
        return Scenes(self.centers[index], self.shapes[index])


def check_size(image_size: int, radius: int) -> None:
    """Raise `ValueError` if two objects of ``radius`` do not fit into an image."""
    check_at_least(1, "data.", radius=radius)
    if not _fits(image_size, radius):
        largest = max((r for r in range(1, image_size) if _fits(image_size, r)), default=0)
        allowed = f"must be at most {largest}" if largest else "no radius fits; raise data.image_size"
        raise ValueError(f"data.radius={radius}: two objects do not fit into {image_size} pixels, {allowed}")


def _fits(image_size: int, radius: int) -> bool:
    return image_size - 2 * radius >= 1 and 2 * (image_size - 2 * radius - 1) ** 2 >= (2 * radius) ** 2


def draw_scenes(number: int, image_size: int, radius: int, generator: torch.Generator) -> Scenes:
    """Draw scenes of the dataset, uniformly among all pairs of places that are far enough apart.

    Centres are integers in ``[radius, image_size - radius)``. The two centres of a scene have a Euclidean distance of
    at least ``2 * radius``. Each object is a circle or a square with probability 1/2. The authors draw blue uniformly
    among all places, then red among those that are far enough away: their blue is in the middle more often.

    Args:
        number: Number of scenes.
        image_size: Height and width of an image, in pixels.
        radius: Radius of a circle, half the side of a square, in pixels.
        generator: Random number generator on the CPU.

    Example:
        >>> scenes = draw_scenes(1000, image_size=64, radius=10, generator=torch.Generator().manual_seed(0))
        >>> scenes.centers.shape, int(scenes.centers.min()), int(scenes.centers.max())
        (torch.Size([1000, 2, 2]), 10, 53)
    """
    check_size(image_size, radius)
    places = image_size - 2 * radius
    # Different offsets from red to blue are few: draw the offset, weighted by its number of pairs, then red's place.
    step = torch.arange(1 - places, places)
    offset = torch.cartesian_prod(step, step)
    pairs = (places - offset.abs()).prod(1) * (offset.square().sum(1) >= (2 * radius) ** 2)
    offset = offset[torch.multinomial(pairs.double(), number, replacement=True, generator=generator)]
    room = places - offset.abs()
    red = (torch.rand(number, 2, generator=generator, dtype=torch.float64) * room).long() + (-offset).clamp(min=0)
    centers = torch.stack([red, red + offset], 1) + radius
    return Scenes(centers, torch.randint(2, (number, 2), generator=generator))


def stamps(radius: int) -> Tensor:
    """Return masks of the two shapes: uint8 ``(2, 2 * radius + 1, 2 * radius + 1)``, 255 inside and 0 outside."""
    axis = torch.arange(-radius, radius + 1)
    circle = axis.square()[:, None] + axis.square() <= radius**2
    return torch.stack([circle, torch.ones_like(circle)]).byte() * 255


def render(scenes: Scenes, image_size: int, radius: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Render scenes on white without anti-aliasing: ``(N, 3, H, W)``, RGB.

    The red object hides the blue one where they overlap.

    Args:
        scenes: The ``N`` scenes.
        image_size: Height and width of an image, in pixels.
        radius: Radius of a circle, half the side of a square, in pixels.
        dtype: ``torch.uint8`` for values 0 and 255, ``torch.float32`` for -1 and 1.

    Example:
        >>> scene = Scenes(centers=torch.tensor([[[2, 2], [7, 7]]]), shapes=torch.tensor([[1, 1]]))
        >>> image = render(scene, image_size=10, radius=2)[0]
        >>> image[:, 2, 2].tolist(), image[:, 7, 7].tolist(), image[:, 0, 9].tolist()
        ([255, 0, 0], [0, 0, 255], [255, 255, 255])
    """
    number, device = len(scenes.centers), scenes.centers.device
    windows, length, origin = _windows(image_size, radius, dtype, device)
    images = torch.empty(number, 3, image_size, image_size, dtype=dtype, device=device)
    planes = images.view(3 * number, image_size**2)
    x, y = (scenes.centers - radius).unbind(-1)
    red, blue = (origin - y * image_size - x + scenes.shapes * length).unbind(1)
    # The channels start as: the red object, everything but the blue one, everything but the red one. The last channel
    # is final; the first two are combined below.
    chosen = torch.stack([red, blue + 2 * length, red + 2 * length], 1).flatten()
    for start in range(0, number, _CHUNK):
        rows = slice(3 * start, 3 * (start + _CHUNK))
        torch.index_select(windows, 0, chosen[rows], out=planes[rows])
        first, second, third = images[start : start + _CHUNK].unbind(1)
        torch.minimum(second, third, out=second)
        torch.maximum(first, second, out=first)
    return images


@lru_cache(maxsize=4)
def _windows(image_size: int, radius: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, int, int]:
    """Return every shape at every place, bright on dark and then dark on bright, as views of a few rows of memory.

    An image is a row of ``H * W`` pixels in memory. If a shape is written once into a longer row, each window of
    ``H * W`` pixels of that row is an image of the shape at another place.

    Returns:
        The windows ``(windows, H * W)``; the number of windows of one shape; and the index of the window of a shape
        whose upper left corner is at (0, 0). One pixel further to the right is one window earlier, one pixel further
        down ``W`` windows earlier. The windows of the second shape follow those of the first, and inverted images of
        both shapes follow after that.
    """
    side, pixels = 2 * radius + 1, image_size**2
    origin = (image_size - side) * (image_size + 1)
    length = origin + pixels
    rows = torch.zeros(2, length, dtype=torch.uint8)
    rows.as_strided((2, side, side), (length, image_size, 1), origin).copy_(stamps(radius))
    rows = torch.cat([rows, ~rows]).flatten()
    rows = to_float(rows) if dtype == torch.float32 else rows
    return rows.to(device).unfold(0, pixels, 1), length, origin

"""What is in an image of the two-shape dataset: the ground truth behind `generative.shapes`, read back from pixels.

It reads soft images too (blurred, anti-aliased, a little off in colour), as generators make them. In short: a mask of
how red and how blue each pixel is; for each colour the place where most of it is; around it, the centre of mass of the
mask. Where the other colour hides a part of the object, that part is filled in from a circle or a square at the centre
found so far, and the centre is computed again until it stays. The shape that agrees better is the object's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from generative.shapes import stamps

MIN_AGREEMENT = 0.75
"""Least overlap (intersection over union) of a colour's mask with the object found; a circle and a square of the same
area have 0.83."""

SIZE_TOLERANCE = 0.25
"""How far an object's size may be from the radius, relative to the radius."""

MIN_PRESENT = 0.25
"""Least area of a colour that is present, relative to a circle's."""

MAX_OTHER = 0.25
"""Most area that is neither white nor of the two colours, relative to a circle's."""

_MARGIN = 4  # pixels looked at around an object
_REACH = 2.5  # pixels around an object whose mass counts for its centre
_ROUNDS = 10  # a round leaves about a third of the error; only objects that are partly hidden need more than two
_CRISP = 0.02  # largest difference from a stamp of what is taken for that stamp
_SIZE_WEIGHT = 0.25  # of a wrong size: of radius 5, a circle made of pixels is nearly a square of half side 4
_SMALLEST, _LARGEST = 0.9, 1.2  # sizes of the shapes that fill in what is hidden, relative to the radius
_PIXELS = 2**19  # of the images looked at together on a CPU: what is made of them stays in the cache


class Decoded(NamedTuple):
    """What is seen in each of ``B`` images; objects in the order of `generative.shapes.COLOURS`.

    Attributes:
        present: bool ``(B, 2)``: whether there is anything of that colour to speak of.
        centers: float32 ``(B, 2, 2)``: x and y of the object's centre in pixels; the first pixel's centre is at 0.
        shapes: int64 ``(B, 2)``: number of its shape in `generative.shapes.SHAPES`, the nearer one.
        sizes: float32 ``(B, 2)``: radius of a circle, half the side of a square, in pixels, from the visible area.
        valid: bool ``(B,)``: whether the image is one of the dataset, but for small faults: both colours are there,
            each is a single thing of about the right size and of one of the shapes (`MIN_AGREEMENT`,
            `SIZE_TOLERANCE`), and there is little else (`MAX_OTHER`). The other fields of an image that is not
            valid are finite, and mean little.
    """

    present: Tensor
    centers: Tensor
    shapes: Tensor
    sizes: Tensor
    valid: Tensor


def decode(images: Tensor, radius: int) -> Decoded:
    """Finds the red and the blue object in each image.

    Centres in images of `generative.shapes.render` come out exact, also of objects that are partly hidden, whichever
    is in front. In soft images they are those of mass, to fractions of a pixel.

    Args:
        images: ``(B, 3, H, W)``, floating point in [-1, 1], on any device; values beyond are clipped. An image with a
            value that is not finite is not valid.
        radius: Of a circle; half the side of a square; in pixels. H and W must be above ``2 * radius``.

    Returns:
        What is in them, on the same device.

    Raises:
        ValueError: ``images`` has another shape or type, or is too small.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images of shape {tuple(images.shape)} and {images.dtype}: must be (B, 3, H, W) of floating point"
        )
    if radius < 1 or min(images.shape[2:]) <= 2 * radius:
        raise ValueError(f"radius={radius}: must be at least 1, and below half of the images' {min(images.shape[2:])}")
    with torch.no_grad():
        pixels = _PIXELS if images.device.type == "cpu" else 64 * _PIXELS
        batch = max(1, pixels // (images.shape[2] * images.shape[3]))
        parts = [_decode(part, radius) for part in images.split(batch)]
    return Decoded(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def colour_masks(images: Tensor) -> tuple[Tensor, Tensor]:
    """How red and how blue each pixel is.

    Of a blend of white, red and blue this is the share of red and of blue: where two objects touch, pixels between them
    are of both, and neither's edge moves. Greys, black, green and magenta have none.

    Args:
        images: float32 ``(B, 3, H, W)``, in [-1, 1].

    Returns:
        ``(B, 2, H, W)`` in [0, 1], red and blue; ``(B, H, W)`` in [0, 1], what is not of white, red and blue.
    """
    images = (images + 1) / 2
    red, green, blue = images.unbind(1)
    masks = torch.stack([torch.minimum(red - green, 1 - blue), torch.minimum(blue - green, 1 - red)], 1).clamp_(min=0)
    return masks, (1 - images.amin(1) - masks.sum(1)).clamp_(0, 1)


def _sharp(mask: Tensor) -> Tensor:
    """A mask with the middle half of its contrast: without faint stains, and with narrow edges of the same place."""
    return (2 * mask - 0.5).clamp_(0, 1)


def _decode(images: Tensor, radius: int) -> Decoded:
    finite = images.isfinite().flatten(1).all(1)
    images = torch.where(finite[:, None, None, None], images.float(), 1.0).clamp(-1, 1)
    masks, other = colour_masks(images)
    area = float(stamps(radius)[0].sum()) / 255
    mass = _sharp(masks).sum((2, 3))
    windows = _Windows(masks, radius)
    start = _Fit(windows, windows.start(), radius).run(2).middle()
    fit = _Fit(windows, start, radius).run(_ROUNDS).snap()
    agreement = fit.agreement(mass)
    shapes = (agreement - _SIZE_WEIGHT * (fit.sizes / radius - 1).abs()).argmax(-1)
    centers, sizes, agreement = (fit.chosen(field, shapes) for field in (fit.centers, fit.sizes, agreement))
    # By the stronger colour: a purple object is neither a red nor a blue one.
    present = _sharp((masks - masks.flip(1)).clamp(min=0)).sum((2, 3)) >= MIN_PRESENT * area
    good = present & (agreement >= MIN_AGREEMENT) & ((sizes - radius).abs() <= SIZE_TOLERANCE * radius)
    # Means of 3 x 3 pixels: noise is not other, a stain is.
    clean = _sharp(functional.avg_pool2d(other[:, None], 3, stride=1, padding=1)).sum((1, 2, 3)) <= MAX_OTHER * area
    return Decoded(present, centers, shapes, sizes, good.all(1) & clean & finite)


class _Windows:
    """Pieces of the masks around places, ``2 * (radius + _MARGIN) + 1`` wide; nothing lies beyond the image."""

    def __init__(self, masks: Tensor, radius: int) -> None:
        self.masks, self.radius = masks, radius
        self.height, self.width = masks.shape[-2:]
        self.half = radius + _MARGIN
        padded = functional.pad(masks, [_MARGIN] * 4)
        self._views = padded.unfold(2, 2 * self.half + 1, 1).unfold(3, 2 * self.half + 1, 1)

    def start(self) -> Tensor:
        """Where a square of an object's size has most of the colour in it: int64 ``(n, 2, 2)``, x and y."""
        side = 2 * self.radius + 1
        mean = functional.avg_pool2d(_sharp(self.masks), (side, 1), stride=1)
        mean = functional.avg_pool2d(mean, (1, side), stride=1)
        best, columns = mean.flatten(2).argmax(2), mean.shape[-1]
        return torch.stack([best % columns, best // columns], -1) + self.radius

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Each colour's mask around its place, and the other colour's there: ``(n, 2, k, k)`` each."""
        x, y = (places - self.radius).unbind(-1)
        image = torch.arange(len(places), device=places.device)[:, None]
        colour = torch.arange(2, device=places.device)
        return self._views[image, colour, y, x], self._views[image, 1 - colour, y, x]

    def clip(self, centers: Tensor) -> Tensor:
        """The nearest places that have a window."""
        most = torch.tensor([self.width, self.height], device=centers.device) - 1 - self.radius
        return centers.round().long().clamp(min=self.radius).minimum(most)


class _Fit:
    """A circle and a square fitted to each colour's mask around a place.

    Attributes:
        centers: ``(n, 2, 2, 2)``: by image, colour and shape, x and y in pixels.
        sizes: ``(n, 2, 2)``: radius or half side, in pixels.
    """

    def __init__(self, windows: _Windows, places: Tensor, radius: int) -> None:
        self.windows, self.places, self.radius = windows, places, radius
        self.own, self.hiding = (mask[:, :, None] for mask in windows.at(places))
        self.axis = torch.arange(-windows.half, windows.half + 1, device=places.device, dtype=torch.float32)
        number = len(places)
        # Of the centre from the place. In float32, whatever a trainer has made the default.
        self._offsets = torch.zeros(number, 2, 2, 2, device=places.device, dtype=torch.float32)
        self.sizes = torch.full((number, 2, 2), float(radius), device=places.device, dtype=torch.float32)
        self._exact = torch.zeros(number, 2, 2, dtype=torch.bool, device=places.device)

    @property
    def centers(self) -> Tensor:
        return self.places[:, :, None] + self._offsets

    def middle(self) -> Tensor:
        """The places next to the centres."""
        return self.windows.clip(self.centers.mean(2))

    @staticmethod
    def chosen(field: Tensor, shapes: Tensor) -> Tensor:
        """Of a field by image, colour and shape the entries of the given shapes."""
        index = shapes.reshape(*shapes.shape, *[1] * (field.ndim - 2)).expand(-1, -1, 1, *field.shape[3:])
        return field.gather(2, index).squeeze(2)

    def run(self, rounds: int) -> _Fit:
        """Moves the centres to those of mass, ``rounds`` times where something is hidden and twice elsewhere."""
        images: slice | Tensor = slice(None)
        for number in range(rounds):
            if number == 2:
                images = (self.hiding.amax((1, 2, 3, 4)) > _CRISP).nonzero()[:, 0]
            self._round(images)
        return self

    def _round(self, images: slice | Tensor) -> None:
        own, hiding = self.own[images], self.hiding[images]
        offsets = self._offsets[images]
        # Of something half hidden, neither the size nor the place is known without the other.
        sizes = self.sizes[images].clamp(_SMALLEST * self.radius, _LARGEST * self.radius)
        seen = _completed(own, hiding, self._templates(offsets, sizes))
        area = _sharp(seen).sum((-2, -1))
        # Mass far from the object, and as far on all sides of it, does not count.
        reach = (self.radius + _REACH + 0.5 - (self.axis - offsets[..., None]).abs()).clamp_(0, 1)
        across = (seen * reach[..., 1, :, None]).sum(-2) * reach[..., 0, :]
        down = (seen * reach[..., 0, None, :]).sum(-1) * reach[..., 1, :]
        mass = across.sum(-1).clamp(min=1e-3)
        moved = torch.stack([(across * self.axis).sum(-1) / mass, (down * self.axis).sum(-1) / mass], -1)
        self._offsets[images] = moved
        circle, square = (area[..., 0] / torch.pi).sqrt(), (area[..., 1].sqrt() - 1) / 2
        self.sizes[images] = torch.stack([circle, square], -1).clamp(self.radius / 2, 2 * self.radius)

    def _templates(self, offsets: Tensor, sizes: Tensor) -> Tensor:
        """A circle and a square, with edges a pixel wide: ``(n, 2, 2, k, k)``."""
        x, y = (self.axis - offsets[..., None]).unbind(-2)
        distance = (x[..., 0, None, :].square() + y[..., 0, :, None].square()).sqrt_()
        circle = (sizes[..., 0, None, None] + 0.5 - distance).clamp_(0, 1)
        across, down = ((sizes[..., 1, None] + 1 - value[..., 1, :].abs()).clamp_(0, 1) for value in (x, y))
        return torch.stack([circle, down[..., :, None] * across[..., None, :]], 2)

    def snap(self) -> _Fit:
        """Makes exact what is, where it is not hidden, one of the dataset's stamps."""
        places = self.middle()
        own, hiding = (mask[:, :, None] for mask in self.windows.at(places))
        stamp = functional.pad(stamps(self.radius).to(own.device).float() / 255, [_MARGIN] * 4)
        differs = (_completed(own, hiding, stamp) - stamp).abs().amax((-2, -1))
        least, shape = differs.min(-1, keepdim=True)
        self._exact = (least <= _CRISP) & (torch.arange(2, device=own.device) == shape)
        offsets = (places - self.places)[:, :, None].float()
        self._offsets = torch.where(self._exact[..., None], offsets, self._offsets)
        self.sizes = torch.where(self._exact, float(self.radius), self.sizes)
        return self

    def agreement(self, mass: Tensor) -> Tensor:
        """Intersection over union of what is seen of a colour, anywhere, and each shape: ``(n, 2, 2)``."""
        template = self._templates(self._offsets, self.sizes)
        seen = _sharp(_completed(self.own, self.hiding, template))
        template = _sharp(template)
        elsewhere = mass[..., None] - _sharp(self.own).sum((-2, -1))
        both = torch.minimum(seen, template).sum((-2, -1))
        either = torch.maximum(seen, template).sum((-2, -1))
        # A stamp agrees with itself.
        return torch.where(self._exact, either, both) / (either + elsewhere).clamp(min=1e-3)


def _completed(own: Tensor, hiding: Tensor, template: Tensor) -> Tensor:
    """A mask, and what the template has where the other colour may hide it."""
    return torch.minimum(template, own + hiding).maximum(own)

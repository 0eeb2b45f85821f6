"""Decode two-shape images: find centre, shape and size of the red and the blue object from pixels.

It also decodes soft images (blurred, anti-aliased, slightly off in colour), as generators make them:

1. Compute how red and how blue each pixel is.
2. For each colour, find the place where most of it is, and the centre of mass of the mask around it.
3. Where the other colour hides a part of the object, fill that part in from a circle or a square at the centre found so
   far. Repeat until the centre no longer moves.
4. Choose the shape with the better overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from generative.two_shapes import stamps

# Smallest intersection over union of a colour's mask with the fitted object; a circle and a square of equal area: 0.83.
MIN_OVERLAP = 0.75
SIZE_TOLERANCE = 0.25  # largest deviation of an object's size from the radius, relative to the radius
MIN_PRESENT = 0.25  # smallest area of a colour that counts as present, relative to the area of a circle
MAX_OTHER = 0.25  # largest area that is neither white, red nor blue, relative to the area of a circle
_MARGIN = 4  # pixels around an object in its window
_CENTER_MARGIN = 2.5  # pixels around an object whose mass counts for its centre
_ITERATIONS = 10  # each leaves about a third of the error; only partly hidden objects need more than two
_EXACT_TOLERANCE = 0.02  # largest difference from a stamp of a mask that counts as exactly that stamp
_SIZE_WEIGHT = 0.25  # weight of a size error: at radius 5, a circle made of pixels is nearly a square of half side 4
_MIN_SCALE, _MAX_SCALE = 0.9, 1.2  # of the shapes that fill in hidden parts, relative to the radius
_PIXELS = 2**19  # decoded at a time on a CPU, so that intermediate results stay in the cache


class DecodedScenes(NamedTuple):
    """The objects found in ``B`` images, in the order of `generative.two_shapes.COLOURS`.

    An image is valid if it could be one of the dataset, up to small faults. Both colours are present, each is a single
    object of about the right size (`SIZE_TOLERANCE`) and shape (`MIN_OVERLAP`), and there is little else (`MAX_OTHER`).
    The other fields of an invalid image are finite but not meaningful.
    """

    present: Tensor  # bool (B, 2): whether there is a noticeable area of that colour
    centers: Tensor  # float32 (B, 2, 2): x and y of the object's centre in pixels; the first pixel's centre is at 0
    shapes: Tensor  # int64 (B, 2): the more similar shape, as an index into generative.two_shapes.SHAPES
    sizes: Tensor  # float32 (B, 2): radius of a circle, half the side of a square, in pixels, from the visible area
    valid: Tensor  # bool (B,)


def decode(images: Tensor, radius: int) -> DecodedScenes:
    """Find the red and the blue object in each image.

    Centres in images of `generative.two_shapes.render` are exact, also for partly hidden objects, whichever colour is
    in front. In soft images they are centres of mass, accurate to fractions of a pixel.

    Args:
        images: ``(B, 3, H, W)``, floating point in [-1, 1], on any device; other values are clipped. An image with a
            NaN or infinity is invalid.
        radius: Radius of a circle, half the side of a square, in pixels. H and W must be above ``2 * radius``.

    Example:
        >>> import torch
        >>> from generative.pixel_range import to_float
        >>> from generative.two_shapes import Scenes, render
        >>> scene = Scenes(centers=torch.tensor([[[20, 15], [40, 50]]]), shapes=torch.tensor([[0, 1]]))
        >>> decoded = decode(to_float(render(scene, image_size=64, radius=10)), radius=10)
        >>> decoded.centers.tolist(), decoded.shapes.tolist(), decoded.valid.tolist()
        ([[[20.0, 15.0], [40.0, 50.0]]], [[0, 1]], [True])
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images of shape {tuple(images.shape)} and {images.dtype}: must be floating point (B, 3, H, W)"
        )
    if radius < 1 or min(images.shape[2:]) <= 2 * radius:
        raise ValueError(f"radius={radius}: must be at least 1, and below half of the images' {min(images.shape[2:])}")
    with torch.no_grad():
        pixels = _PIXELS if images.device.type == "cpu" else 64 * _PIXELS
        batch = max(1, pixels // (images.shape[2] * images.shape[3]))
        decoded = [_decode(chunk, radius) for chunk in images.split(batch)]
    return DecodedScenes(*(torch.cat(fields) for fields in zip(*decoded, strict=True)))


def colour_masks(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute how red and how blue each pixel is.

    For a blend of white, red and blue, the masks are the fractions of red and blue: pixels between two touching objects
    belong to both, and neither object's edge moves. Grey, black, green and magenta are neither red nor blue.
    Images are ``(B, 3, H, W)``, in [-1, 1]. The masks are ``(B, 2, H, W)``, and the fraction of all other colours is
    ``(B, H, W)``, in [0, 1].
    """
    images = (images + 1) / 2
    red, green, blue = images.unbind(1)
    masks = torch.stack([torch.minimum(red - green, 1 - blue), torch.minimum(blue - green, 1 - red)], 1).clamp_(min=0)
    return masks, (1 - images.amin(1) - masks.sum(1)).clamp_(0, 1)


def _sharp(mask: Tensor) -> Tensor:
    """Stretch the middle half of a mask's contrast: faint stains vanish, and edges get narrower at the same place."""
    return (2 * mask - 0.5).clamp_(0, 1)


def _decode(images: Tensor, radius: int) -> DecodedScenes:
    finite = images.isfinite().flatten(1).all(1)
    images = torch.where(finite[:, None, None, None], images.float(), 1.0).clamp(-1, 1)
    masks, other = colour_masks(images)
    area = float(stamps(radius)[0].sum()) / 255
    mass = _sharp(masks).sum((2, 3))
    windows = _Windows(masks, radius)
    start = _Fit(windows, windows.densest_places()).iterate(2).nearest_places()
    fit = _Fit(windows, start).iterate(_ITERATIONS).snap_to_stamps()
    overlap = fit.overlap(mass)
    shapes = (overlap - _SIZE_WEIGHT * (fit.sizes / radius - 1).abs()).argmax(-1)
    centers, sizes, overlap = (fit.select_shapes(field, shapes) for field in (fit.centers, fit.sizes, overlap))
    # The stronger colour minus the other one: a purple object is neither red nor blue.
    present = _sharp((masks - masks.flip(1)).clamp(min=0)).sum((2, 3)) >= MIN_PRESENT * area
    good = present & (overlap >= MIN_OVERLAP) & ((sizes - radius).abs() <= SIZE_TOLERANCE * radius)
    # Means of 3 x 3 pixels, so that stains count as another colour but noise does not.
    clean = _sharp(functional.avg_pool2d(other[:, None], 3, stride=1, padding=1)).sum((1, 2, 3)) <= MAX_OTHER * area
    return DecodedScenes(present, centers, shapes, sizes, good.all(1) & clean & finite)


class _Windows:
    """Square windows of masks ``(n, 2, H, W)``, ``2 * (radius + _MARGIN) + 1`` wide, padded with 0 beyond the image."""

    def __init__(self, masks: Tensor, radius: int) -> None:
        self.masks, self.radius = masks, radius
        self.height, self.width = masks.shape[-2:]
        self.half = radius + _MARGIN
        padded = functional.pad(masks, [_MARGIN] * 4)
        self._views = padded.unfold(2, 2 * self.half + 1, 1).unfold(3, 2 * self.half + 1, 1)

    def densest_places(self) -> Tensor:
        """Find where a square of an object's size contains most of each colour: int64 ``(n, 2, 2)``, x and y."""
        side = 2 * self.radius + 1
        mean = functional.avg_pool2d(_sharp(self.masks), (side, 1), stride=1)
        mean = functional.avg_pool2d(mean, (1, side), stride=1)
        best, columns = mean.flatten(2).argmax(2), mean.shape[-1]
        return torch.stack([best % columns, best // columns], -1) + self.radius

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return each colour's mask around its place, and the other colour's mask there: ``(n, 2, k, k)`` each."""
        x, y = (places - self.radius).unbind(-1)
        image = torch.arange(len(places), device=places.device)[:, None]
        colour = torch.arange(2, device=places.device)
        return self._views[image, colour, y, x], self._views[image, 1 - colour, y, x]

    def nearest(self, centers: Tensor) -> Tensor:
        """Round centres to the nearest places at which an object lies inside the image."""
        last = torch.tensor([self.width, self.height], device=centers.device) - 1 - self.radius
        return centers.round().long().clamp(min=self.radius).minimum(last)


class _Fit:
    """A circle and a square fitted to each colour's mask around a place: int64 ``(n, 2, 2)``, x and y by colour."""

    def __init__(self, windows: _Windows, places: Tensor) -> None:
        self.windows, self.places, self.radius = windows, places, windows.radius
        self.own, self.hiding = (mask[:, :, None] for mask in windows.at(places))
        self.axis = torch.arange(-windows.half, windows.half + 1, device=places.device, dtype=torch.float32)
        number = len(places)
        # Offsets of the centres from the places. In float32, whatever dtype a trainer has made the default.
        self._offsets = torch.zeros(number, 2, 2, 2, device=places.device, dtype=torch.float32)
        # By image, colour and shape, radius or half side in pixels.
        self.sizes = torch.full((number, 2, 2), float(self.radius), device=places.device, dtype=torch.float32)
        self._exact = torch.zeros(number, 2, 2, dtype=torch.bool, device=places.device)

    @property
    def centers(self) -> Tensor:
        """``(n, 2, 2, 2)``: by image, colour and shape, x and y of the centre in pixels."""
        return self.places[:, :, None] + self._offsets

    def nearest_places(self) -> Tensor:
        """Return the places nearest to the centres, averaged over both shapes."""
        return self.windows.nearest(self.centers.mean(2))

    @staticmethod
    def select_shapes(field: Tensor, shapes: Tensor) -> Tensor:
        """Select the entries of the given shapes from a field by image, colour and shape."""
        index = shapes.reshape(*shapes.shape, *[1] * (field.ndim - 2)).expand(-1, -1, 1, *field.shape[3:])
        return field.gather(2, index).squeeze(2)

    def iterate(self, iterations: int) -> _Fit:
        """Move the centres to the centres of mass: ``iterations`` times where a part is hidden, twice elsewhere."""
        images: slice | Tensor = slice(None)
        for iteration in range(iterations):
            if iteration == 2:
                images = (self.hiding.amax((1, 2, 3, 4)) > _EXACT_TOLERANCE).nonzero()[:, 0]
            self._update(images)
        return self

    def _update(self, images: slice | Tensor) -> None:
        own, hiding = self.own[images], self.hiding[images]
        offsets = self._offsets[images]
        # Size and place of a half hidden object are ambiguous: keep the size near the radius.
        sizes = self.sizes[images].clamp(_MIN_SCALE * self.radius, _MAX_SCALE * self.radius)
        seen = _fill_hidden(own, hiding, self._templates(offsets, sizes))
        area = _sharp(seen).sum((-2, -1))
        # Only mass within an equal distance on all sides of the object counts.
        reach = (self.radius + _CENTER_MARGIN + 0.5 - (self.axis - offsets[..., None]).abs()).clamp_(0, 1)
        across = (seen * reach[..., 1, :, None]).sum(-2) * reach[..., 0, :]
        down = (seen * reach[..., 0, None, :]).sum(-1) * reach[..., 1, :]
        mass = across.sum(-1).clamp(min=1e-3)
        moved = torch.stack([(across * self.axis).sum(-1) / mass, (down * self.axis).sum(-1) / mass], -1)
        self._offsets[images] = moved
        circle, square = (area[..., 0] / torch.pi).sqrt(), (area[..., 1].sqrt() - 1) / 2
        self.sizes[images] = torch.stack([circle, square], -1).clamp(self.radius / 2, 2 * self.radius)

    def _templates(self, offsets: Tensor, sizes: Tensor) -> Tensor:
        """Draw a circle and a square with edges one pixel wide: ``(n, 2, 2, k, k)``."""
        x, y = (self.axis - offsets[..., None]).unbind(-2)
        distance = (x[..., 0, None, :].square() + y[..., 0, :, None].square()).sqrt_()
        circle = (sizes[..., 0, None, None] + 0.5 - distance).clamp_(0, 1)
        across, down = ((sizes[..., 1, None] + 1 - value[..., 1, :].abs()).clamp_(0, 1) for value in (x, y))
        return torch.stack([circle, down[..., :, None] * across[..., None, :]], 2)

    def snap_to_stamps(self) -> _Fit:
        """Make centres and sizes exact where the visible part equals one of the dataset's stamps."""
        places = self.nearest_places()
        own, hiding = (mask[:, :, None] for mask in self.windows.at(places))
        stamp = functional.pad(stamps(self.radius).to(own.device).float() / 255, [_MARGIN] * 4)
        differs = (_fill_hidden(own, hiding, stamp) - stamp).abs().amax((-2, -1))
        least, shape = differs.min(-1, keepdim=True)
        self._exact = (least <= _EXACT_TOLERANCE) & (torch.arange(2, device=own.device) == shape)
        offsets = (places - self.places)[:, :, None].float()
        self._offsets = torch.where(self._exact[..., None], offsets, self._offsets)
        self.sizes = torch.where(self._exact, float(self.radius), self.sizes)
        return self

    def overlap(self, mass: Tensor) -> Tensor:
        """Compute the intersection over union of each colour and each shape, ``(n, 2, 2)``.

        ``mass`` is the area of each colour in the whole image, ``(n, 2)``.
        """
        template = self._templates(self._offsets, self.sizes)
        seen = _sharp(_fill_hidden(self.own, self.hiding, template))
        template = _sharp(template)
        elsewhere = mass[..., None] - _sharp(self.own).sum((-2, -1))
        both = torch.minimum(seen, template).sum((-2, -1))
        either = torch.maximum(seen, template).sum((-2, -1))
        # A stamp overlaps itself completely.
        return torch.where(self._exact, either, both) / (either + elsewhere).clamp(min=1e-3)


def _fill_hidden(own: Tensor, hiding: Tensor, template: Tensor) -> Tensor:
    """Fill a mask from the template where the other colour may hide the object."""
    return torch.minimum(template, own + hiding).maximum(own)

"""Canvases of scattered glyphs with their boxes: the data of the paper's detection experiment, drawn fast.

Single glyphs (digits, or any other small pictures) are resized at random, placed at random on a large canvas, added
up and clipped; then the centre of the canvas is cut out. `CanvasSettings` has the paper's figures as its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Shorts = npt.NDArray[np.uint16]
_Int32s = npt.NDArray[np.int32]
_Bools = npt.NDArray[np.bool_]

TrueBoxes = Literal["cut", "whole", "all"]
"""Which boxes are the objects of a canvas: see `CanvasSettings`."""

# Few enough for their patches to stay in the processor's cache.
_CHUNK = 128


@dataclass(frozen=True)
class Glyphs:
    """A set of single glyphs, bright ink on black, each cut down to its ink.

    Attributes:
        images: uint8 ``(G, H, W)``, 0 (ground) to 255 (ink). Glyph ``g`` takes the top left ``sizes[g]`` pixels.
        sizes: int64 ``(G, 2)``, height and width of each glyph in pixels, at least 1.
        labels: int64 ``(G,)``, class numbers from 0.
        class_names: Name of each class, in the order of the class numbers.
        source_index: int64 ``(G,)``, number of each glyph in the source that it was read from.
    """

    images: Tensor
    sizes: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source_index: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def select(self, chosen: Tensor) -> Glyphs:
        """Return some of the glyphs.

        Args:
            chosen: int64 ``(N,)``, positions in this set.

        Returns:
            The chosen glyphs, in that order.
        """
        images, sizes, labels, numbers = (
            tensor[chosen] for tensor in (self.images, self.sizes, self.labels, self.source_index)
        )
        return Glyphs(images, sizes, labels, self.class_names, numbers)


@dataclass(frozen=True)
class CanvasSettings:
    """How canvases are drawn. The defaults are the paper's.

    Attributes:
        canvas_size: Side of the canvas that glyphs are placed on, in pixels.
        crop: Side of the square that is cut out of its centre, in pixels: its border may cut glyphs, and some are
            lost. None keeps the whole canvas.
        digits: Glyphs placed on each canvas, 0 or more.
        min_size: Least height and width of a placed glyph, in pixels.
        max_size: Greatest height and width of a placed glyph, in pixels.
        min_visible: A cut glyph counts as an object if both sides of what is left of its box have at least this
            length, in pixels. Of less than 1, the default, there may be nothing to see: no pixel's centre is in it.
        whole_pixels: Whether sizes and positions are whole numbers. They are not in the authors' data.
        true_boxes: What counts as an object. "cut": what is left of a glyph, as its box cut off at the border.
            "whole": the same glyphs with whole boxes, which may reach beyond the border. "all": whole boxes of all
            glyphs, of those beyond the border too, where there is nothing to see of them: the authors' data.

    Raises:
        ValueError: If a value is out of range.
    """

    canvas_size: int = 120
    crop: int | None = 64
    digits: int = 5
    min_size: int = 15
    max_size: int = 25
    min_visible: float = 1.0
    whole_pixels: bool = False
    true_boxes: TrueBoxes = "cut"

    def __post_init__(self) -> None:
        size = self.canvas_size
        if size < 1:
            raise ValueError(f"canvas_size={size}: must be at least 1")
        if self.crop is not None and not 1 <= self.crop <= size:
            raise ValueError(f"crop={self.crop}: must be in 1 to canvas_size={size}, or null for no crop")
        if self.digits < 0:
            raise ValueError(f"digits={self.digits}: must be at least 0")
        if self.max_size > size:
            raise ValueError(f"max_size={self.max_size}: must be at most canvas_size={size}, or glyphs do not fit")
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(f"min_size={self.min_size}: must be in 1 to max_size={self.max_size}")
        if not 0 < self.min_visible <= self.min_size:
            raise ValueError(f"min_visible={self.min_visible}: must be above 0, at most min_size={self.min_size}")
        if self.true_boxes not in get_args(TrueBoxes):
            raise ValueError(f"true_boxes={self.true_boxes!r}: must be one of {', '.join(get_args(TrueBoxes))}")

    @property
    def image_size(self) -> int:
        """Side of the finished canvases, in pixels."""
        return self.canvas_size if self.crop is None else self.crop


@dataclass(frozen=True)
class Canvases:
    """Finished canvases and their objects.

    Attributes:
        images: uint8 ``(N, S, S)``, 0 to 255.
        boxes: float32 ``(M, 4)``, x0, y0, x1, y1 in pixels, one canvas' boxes after the other's; in [0, S] if
            ``true_boxes="cut"``.
        labels: int64 ``(M,)``, from 1 to the number of classes (0 is the background in torchvision's detectors).
        starts: int64 ``(N + 1,)``. Canvas ``i`` has boxes ``starts[i]`` to ``starts[i + 1]``, possibly none.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the objects of one canvas.

        Args:
            index: Number of the canvas, from 0.

        Returns:
            Its boxes, float32 ``(n, 4)``, and their labels, int64 ``(n,)``; n may be 0.
        """
        own = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.boxes[own], self.labels[own]


def draw_canvases(
    glyphs: Glyphs, count: int, settings: CanvasSettings, rng: np.random.Generator, chunk: int = _CHUNK
) -> Canvases:
    """Draw canvases (the paper's object detection on MNIST).

    The same state of ``rng`` gives the same canvases, bit for bit, whatever ``chunk``, and the first canvases do not
    depend on how many follow.

    Args:
        glyphs: What is placed: each time one of these, all equally likely.
        count: Number of canvases, at least 1.
        settings: Sizes, and the number of glyphs.
        rng: Gives five numbers for every placed glyph: which one, height, width, y, x.
        chunk: Canvases drawn at a time; a matter of speed and memory only.

    Returns:
        ``count`` canvases.

    Raises:
        ValueError: If ``count`` or ``chunk`` is below 1, or there are no glyphs.
    """
    for name, number in (("count", count), ("chunk", chunk), ("len(glyphs)", len(glyphs))):
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    chosen, boxes = _place(len(glyphs), count, settings, rng)
    size = settings.image_size
    images = np.empty((count, size, size), np.uint8)
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        _paint(images[part], glyphs, chosen[part], boxes[part], settings.max_size)
    clipped = boxes.clip(0, size)
    visible = (clipped[..., 2:] - clipped[..., :2] >= settings.min_visible).all(axis=-1)
    counted = np.ones_like(visible) if settings.true_boxes == "all" else visible
    return Canvases(
        images=torch.from_numpy(images),
        boxes=torch.from_numpy((clipped if settings.true_boxes == "cut" else boxes)[counted]).float(),
        labels=glyphs.labels[torch.from_numpy(chosen[counted])] + 1,
        starts=torch.from_numpy(np.concatenate([[0], counted.sum(1).cumsum()])),
    )


def _place(num_glyphs: int, count: int, settings: CanvasSettings, rng: np.random.Generator) -> tuple[_Ints, _Floats]:
    """Draw which glyphs go where: numbers ``(N, D)``, and boxes ``(N, D, 4)`` in the crop's pixels, not clipped."""
    drawn = rng.random((count, settings.digits, 5))
    chosen = (drawn[..., 0] * num_glyphs).astype(np.int64)
    span = settings.max_size - settings.min_size
    if settings.whole_pixels:
        sides = settings.min_size + np.floor(drawn[..., 1:3] * (span + 1))
        corners = np.floor(drawn[..., 3:5] * (settings.canvas_size - sides + 1))
    else:
        sides = settings.min_size + drawn[..., 1:3] * span
        corners = drawn[..., 3:5] * (settings.canvas_size - sides)
    corners -= (settings.canvas_size - settings.image_size) // 2
    # From (y, x) and (height, width) to x0, y0, x1, y1.
    return chosen, np.concatenate([corners, corners + sides], axis=-1)[..., [1, 0, 3, 2]]


def _paint(images: _Bytes, glyphs: Glyphs, chosen: _Ints, boxes: _Floats, patch: int) -> None:
    """Fill ``images`` ``(n, S, S)`` with the sum of the chosen glyphs, cut off at 255.

    ``chosen`` ``(n, D)`` and ``boxes`` ``(n, D, 4)`` are those of `_place`; ``patch`` is the greatest side of a box.
    """
    size = images.shape[-1]
    # A pixel belongs to the boxes that its centre is in, so this is the first row and the first column of each box.
    first = np.ceil(boxes[..., [1, 0]] - 0.5).astype(np.int64)
    # Transposed: all canvases' first glyphs, then their second ones, and so on.
    slot, canvas = np.nonzero(((first > -patch) & (first < size)).all(axis=-1).T)
    first, boxes = first[canvas, slot], boxes[canvas, slot]
    patches = _resample(glyphs, chosen[canvas, slot], boxes, first, patch)
    # With a margin, glyphs beyond the border are no special case.
    side = size + 2 * patch
    padded = np.zeros((len(images), side, side), np.uint8)
    # windows[i, y, x] is the patch of canvas i from pixel (y, x) on, its rows as one item each: those copy fastest.
    places = (len(images), side - patch + 1, side - patch + 1, patch)
    windows = np.ndarray(places, f"V{patch}", padded.data, strides=(side * side, side, 1, side))
    ends = np.searchsorted(slot, np.arange(chosen.shape[1] + 1))
    for now in map(slice, ends[:-1], ends[1:]):
        # One glyph on each canvas: no two of these patches overlap.
        place = (canvas[now], first[now, 0] + patch, first[now, 1] + patch)
        old, ink = windows[place].view(np.uint8), patches[now].reshape(-1, patch * patch)
        # The sum, or 255 where a byte does not hold it.
        windows[place] = (np.minimum(old, ~ink) + ink).view(windows.dtype)
    images[:] = padded[:, patch : patch + size, patch : patch + size]


def _resample(glyphs: Glyphs, chosen: _Ints, boxes: _Floats, first: _Ints, patch: int) -> _Bytes:
    """Resize glyphs ``(m,)`` to their boxes ``(m, 4)``: patches ``(m, patch, patch)`` from pixel ``first`` on.

    Bilinear between the nearest two pixels along each axis, edges repeated, not antialiased: PIL's affine transform,
    which the authors use. It is done in integers, so that the result is the same everywhere.
    """
    ink = glyphs.images.numpy().take(chosen, axis=0)
    sources = glyphs.sizes.numpy().take(chosen, axis=0)
    near, far = boxes[:, [1, 0]], boxes[:, [3, 2]]
    scales = sources / (far - near)
    starts = (first + 0.5 - near) * scales - 0.5
    counts = np.ceil(far - 0.5) - first
    # Pixel i of a patch lies at start + i * scale of its glyph's pixels, within the glyph, if i is below count. It is
    # counted in 256ths, plus a half: the conversion to integers rounds down.
    start, scale, limit, count = (
        values[..., None].astype(np.float32)
        for values in (256 * starts + 0.5, 256 * scales, 256.0 * (sources - 1), counts)
    )
    pixel = np.arange(patch, dtype=np.float32)
    at = np.minimum(np.maximum(pixel * scale + start, 0), limit).astype(np.int32)
    beyond = pixel >= count
    columns = _interpolate(ink.transpose(0, 2, 1), at[:, 1], beyond[:, 1])
    return _interpolate(columns.transpose(0, 2, 1), at[:, 0], beyond[:, 0]).astype(np.uint8)


def _interpolate(lines: _Shorts | _Bytes, at: _Int32s, beyond: _Bools) -> _Shorts:
    """Interpolate between lines.

    Args:
        lines: 0 to 255, ``(m, K, L)``: K lines of L pixels.
        at: Where new lines lie, ``(m, n)``, in 256ths of the distance of two lines.
        beyond: Which of the new lines are empty, ``(m, n)``.

    Returns:
        The new lines, ``(m, n, L)``, 0 to 255.
    """
    m, num_lines, length = lines.shape
    flat = np.zeros((m * num_lines + 1, length), np.uint16)
    flat[:-1].reshape(lines.shape)[...] = lines
    # Steps down are negative and wrap around; so does the sum below, back to its true value.
    steps = np.diff(flat, axis=0, append=flat[-1:])
    flat <<= 8
    flat += 128  # a half, for the division at the end to round to the nearest
    line = (at >> 8) + num_lines * np.arange(m, dtype=np.int32)[:, None]
    line[beyond] = m * num_lines  # the empty line at the end
    result: _Shorts = steps.take(line, axis=0)
    # Gathered, which is faster than one factor for each short line.
    result *= np.repeat(np.arange(256, dtype=np.uint16), length).reshape(256, length).take(at & 255, axis=0)
    result += flat.take(line, axis=0)
    result >>= 8
    return result

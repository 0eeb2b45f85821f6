"""Draw canvases of scattered glyphs with their boxes: the data of the paper's detection experiment.

Single glyphs (digits, or any other small images) are resized at random, placed at random on a large canvas, summed and
clipped; then the centre of the canvas is cropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coordconv_apps.utils.argument_checks import NON_NEGATIVE, Allowed, check_at_least, check_ranges, one_of
from detection.glyphs import Glyphs
from detection.gray_images import Bytes

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Shorts = npt.NDArray[np.uint16]

TrueBoxes = Literal["cut", "whole", "all"]
"""Choices of the boxes that are a canvas's objects: see `detection.data.DetectionData`."""

LabelBy = Literal["glyph", "half"]
"""What decides the class of an object: its glyph, or the half of the image that contains the centre of its box."""

HALF_NAMES = ("upper half", "lower half")
"""Names of the classes with ``label_by="half"``."""


@dataclass(frozen=True)
class CanvasSettings:
    """Settings for drawing canvases, see `detection.data.DetectionData`. The defaults are the paper's.

    If ``min_visible`` is below 1, the visible part of a box may contain no pixel centre: its glyph cannot be seen.
    """

    canvas_size: int = 120
    crop: int | None = 64
    digits: int = 5
    min_size: int = 15
    max_size: int = 25
    min_visible: float = 1.0
    whole_pixels: bool = False
    true_boxes: TrueBoxes = "cut"
    label_by: LabelBy = "glyph"

    def __post_init__(self) -> None:
        side, least, most = self.canvas_size, self.min_size, self.max_size
        allowed: dict[str, Allowed] = {
            "canvas_size": (lambda value: 1 <= value <= 65536, "in 1 to 65536"),
            "crop": (lambda value: 1 <= value <= side, f"in 1 to canvas_size={side}, or null for no crop"),
            "digits": NON_NEGATIVE,
            "max_size": (lambda value: 1 <= value <= side, f"in 1 to canvas_size={side}, or glyphs do not fit"),
            "min_size": (lambda value: 1 <= value <= most, f"in 1 to max_size={most}"),
            "min_visible": (lambda value: 0 < value <= least, f"above 0, at most min_size={least}"),
            "true_boxes": one_of(TrueBoxes),
            "label_by": one_of(LabelBy),
        }
        check_ranges(vars(self), allowed, prefix="data")

    @property
    def image_size(self) -> int:
        """Side of the canvases after the crop, in pixels."""
        return self.canvas_size if self.crop is None else self.crop


@dataclass(frozen=True)
class Canvases:
    """Canvases and their objects.

    Attributes:
        images: uint8 ``(N, S, S)``, 0 to 255.
        boxes: float32 ``(M, 4)``, ``(x1, y1, x2, y2)`` in pixels, canvas by canvas; in [0, S] if ``true_boxes="cut"``.
        labels: int64 ``(M,)``, from 1 to the number of classes (0 is the background in torchvision's detectors).
        starts: int64 ``(N + 1,)``. Canvas ``i`` has the boxes from ``starts[i]`` up to ``starts[i + 1]``, maybe none.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def most_objects(self) -> int:
        """Largest number of objects on a canvas."""
        return int(self.starts.diff().max())

    def objects(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the boxes ``(n, 4)`` and labels ``(n,)`` of one canvas; n may be 0."""
        own = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return self.boxes[own], self.labels[own]


def draw_canvases(
    glyphs: Glyphs, count: int, settings: CanvasSettings, rng: np.random.Generator, chunk: int = 128
) -> Canvases:
    """Draw canvases (the paper's object detection on MNIST).

    The same state of ``rng`` gives the same canvases, bit for bit, for every ``chunk``. The first canvases do not
    depend on ``count``.

    Args:
        glyphs: Glyphs to place, each with the same probability.
        count: Number of canvases, at least 1.
        settings: Sizes, and the number of glyphs.
        rng: Source of five numbers for every placed glyph: index, height, width, y, x.
        chunk: Number of canvases drawn at a time; affects speed and memory only. Patches of 128 stay in a CPU's cache.

    Raises:
        ValueError: If ``count`` or ``chunk`` is below 1, or there are no glyphs.

    Example:
        >>> from detection.glyph_sources import load_glyphs
        >>> glyphs = load_glyphs("uci", ["train"])["train"]
        >>> canvases = draw_canvases(glyphs, 10, CanvasSettings(), np.random.default_rng(0))
        >>> canvases.images.shape
        torch.Size([10, 64, 64])
        >>> boxes, labels = canvases.objects(0)
        >>> boxes.shape == (len(labels), 4)
        True
    """
    check_at_least(1, count=count, chunk=chunk, glyphs=len(glyphs))
    chosen, boxes = _place(len(glyphs), count, settings, rng)
    size = settings.image_size
    images = np.empty((count, size, size), np.uint8)
    for start in range(0, count, chunk):
        part = slice(start, start + chunk)
        _paint(images[part], glyphs, chosen[part], boxes[part], settings.max_size)
    clipped = boxes.clip(0, size)
    visible = (clipped[..., 2:] - clipped[..., :2] >= settings.min_visible).all(axis=-1)
    counted = np.ones_like(visible) if settings.true_boxes == "all" else visible
    true = torch.from_numpy((clipped if settings.true_boxes == "cut" else boxes)[counted]).float()
    if settings.label_by == "half":
        numbers = (true[:, 1] + true[:, 3] >= size).long()
    else:
        numbers = glyphs.labels[torch.from_numpy(chosen[counted])]
    return Canvases(
        images=torch.from_numpy(images),
        boxes=true,
        labels=numbers + 1,
        starts=torch.from_numpy(np.concatenate([[0], counted.sum(1).cumsum()])),
    )


def _place(num_glyphs: int, count: int, settings: CanvasSettings, rng: np.random.Generator) -> tuple[_Ints, _Floats]:
    """Draw the glyphs ``(N, D)`` of each canvas and their boxes ``(N, D, 4)``, in pixels of the crop, not clipped."""
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
    # From (y, x) and (height, width) to (x1, y1, x2, y2).
    return chosen, np.concatenate([corners, corners + sides], axis=-1)[..., [1, 0, 3, 2]]


def _paint(images: Bytes, glyphs: Glyphs, chosen: _Ints, boxes: _Floats, patch: int) -> None:
    """Fill ``images`` ``(n, S, S)`` with the sum of the chosen glyphs, clipped at 255.

    ``chosen`` ``(n, D)`` and ``boxes`` ``(n, D, 4)`` are those of `_place`; ``patch`` is the largest side of a box.
    """
    size = images.shape[-1]
    # A pixel belongs to the boxes that contain its centre: these are the first row and column of each box.
    first = np.ceil(boxes[..., [1, 0]] - 0.5).astype(np.int64)
    # Transposed: the first glyphs of all canvases, then the second ones, and so on.
    slot, canvas = np.nonzero(((first > -patch) & (first < size)).all(axis=-1).T)
    first, boxes = first[canvas, slot], boxes[canvas, slot]
    patches = _resample(glyphs, chosen[canvas, slot], boxes, first, patch)
    # With a margin, glyphs across the border need no special case.
    side = size + 2 * patch
    padded = np.zeros((len(images), side, side), np.uint8)
    # windows[i, y, x] is the patch of canvas i that starts at pixel (y, x). Each row is one item: this copies fastest.
    places = (len(images), side - patch + 1, side - patch + 1, patch)
    windows = np.ndarray(places, f"V{patch}", padded.data, strides=(side * side, side, 1, side))
    ends = np.searchsorted(slot, np.arange(chosen.shape[1] + 1))
    for now in map(slice, ends[:-1], ends[1:]):
        # One glyph on each canvas: no two of these patches overlap.
        place = (canvas[now], first[now, 0] + patch, first[now, 1] + patch)
        old, ink = windows[place].view(np.uint8), patches[now].reshape(-1, patch * patch)
        # The sum, or 255 where it exceeds a byte.
        windows[place] = (np.minimum(old, ~ink) + ink).view(windows.dtype)
    images[:] = padded[:, patch : patch + size, patch : patch + size]


def _resample(glyphs: Glyphs, chosen: _Ints, boxes: _Floats, first: _Ints, patch: int) -> Bytes:
    """Resize glyphs ``(m,)`` to their boxes ``(m, 4)``: patches ``(m, patch, patch)`` that start at pixel ``first``.

    Interpolation is bilinear, with repeated edges and without antialiasing, as in PIL's affine transform, which the
    authors use. It is done in integers, so that the result is the same on every machine.
    """
    ink = glyphs.images.numpy().take(chosen, axis=0)
    sources = glyphs.sizes.numpy().take(chosen, axis=0)
    near, far = boxes[:, [1, 0]], boxes[:, [3, 2]]
    scales = sources / (far - near)
    starts = (first + 0.5 - near) * scales - 0.5
    counts = np.ceil(far - 0.5) - first
    # If i is below count, pixel i of a patch lies at start + i * scale in its glyph. Positions are in 256ths of a
    # pixel, plus a half: the conversion to integers rounds down.
    start, scale, limit, count = (
        values[..., None].astype(np.float32)
        for values in (256 * starts + 0.5, 256 * scales, 256.0 * (sources - 1), counts)
    )
    pixel = np.arange(patch, dtype=np.float32)
    at = np.minimum(np.maximum(pixel * scale + start, 0), limit).astype(np.int32)
    beyond = pixel >= count
    columns = _interpolate(ink.transpose(0, 2, 1), at[:, 1], beyond[:, 1])
    return _interpolate(columns.transpose(0, 2, 1), at[:, 0], beyond[:, 0]).astype(np.uint8)


def _interpolate(lines: _Shorts | Bytes, at: npt.NDArray[np.int32], beyond: npt.NDArray[np.bool_]) -> _Shorts:
    """Interpolate ``n`` new lines ``(m, n, L)`` between ``K`` lines of ``L`` pixels ``(m, K, L)``, 0 to 255.

    ``at`` ``(m, n)`` are their positions in 256ths of the distance between lines, ``beyond`` the mask of empty ones.
    """
    m, num_lines, length = lines.shape
    flat = np.zeros((m * num_lines + 1, length), np.uint16)
    flat[:-1].reshape(lines.shape)[...] = lines
    # Negative steps wrap around; the sum below wraps back to the true value.
    steps = np.diff(flat, axis=0, append=flat[-1:])
    flat <<= 8
    flat += 128  # a half, so that the division at the end rounds to the nearest
    line = (at >> 8) + num_lines * np.arange(m, dtype=np.int32)[:, None]
    line[beyond] = m * num_lines  # the empty line at the end
    result: _Shorts = steps.take(line, axis=0)
    # A gathered table of factors is faster than one factor for each short line.
    result *= np.repeat(np.arange(256, dtype=np.uint16), length).reshape(256, length).take(at & 255, axis=0)
    result += flat.take(line, axis=0)
    result >>= 8
    return result

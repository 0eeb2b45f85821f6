"""Sets of single glyphs: cut down to their ink, and split into training, validation and test glyphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from coordconv_apps.data.splits import SPLITS, Split
from detection.gray_images import Bytes

# Fractions of each class, for sources without a split of their own.
_TEST_SHARE, _VAL_SHARE = 0.2, 0.1
# Independent of a run's seed, so that no run is tested on a glyph that another run was trained on.
_SPLIT_SEED = 0

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Glyphs:
    """A set of single glyphs, bright ink on black, each cut down to its ink.

    Attributes:
        images: uint8 ``(G, H, W)``, 0 (ground) to 255 (ink). Glyph ``g`` fills the top left ``sizes[g]`` pixels.
        sizes: int64 ``(G, 2)``, height and width of each glyph in pixels, at least 1.
        labels: int64 ``(G,)``, class numbers from 0.
        class_names: Name of each class, in the order of the class numbers.
        source_index: int64 ``(G,)``, index of each glyph in the source that it was read from.
    """

    images: Tensor
    sizes: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source_index: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def select(self, chosen: Tensor) -> Glyphs:
        """Return the glyphs at the positions ``chosen``, int64 ``(N,)``, in that order."""
        images, sizes, labels = self.images[chosen], self.sizes[chosen], self.labels[chosen]
        return Glyphs(images, sizes, labels, self.class_names, self.source_index[chosen])


def glyphs_from_images(images: Bytes, labels: npt.NDArray[np.integer], name: str) -> Glyphs:
    """Make glyphs of images ``(G, H, W)`` on a clean black ground; their labels ``(G,)`` become the class names.

    Raises:
        ValueError: If an image has no ink; the message starts with ``name``.

    Example:
        >>> images = np.zeros((1, 5, 5), np.uint8)
        >>> images[0, 1:4, 2] = 255
        >>> glyphs_from_images(images, np.array([7]), "example").sizes
        tensor([[3, 1]])
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    cropped, sizes = crop_to_ink(images, above=0)
    blank = np.flatnonzero(sizes.min(1) < 1)
    if len(blank):
        raise ValueError(f"{name}: {len(blank)} images without ink, the first is number {blank[0]} (from 0)")
    return _make_glyphs(cropped, sizes, numbers, tuple(str(label) for label in classes))


def pack_glyphs(cropped: Sequence[Bytes], labels: npt.NDArray[np.integer], names: tuple[str, ...]) -> Glyphs:
    """Make glyphs of images ``(h, w)`` of different sizes that are cut down to their ink already."""
    sizes = np.array([glyph.shape for glyph in cropped], np.int64)
    images = np.zeros((len(cropped), *sizes.max(0)), np.uint8)
    for image, glyph in zip(images, cropped, strict=True):
        image[: glyph.shape[0], : glyph.shape[1]] = glyph
    return _make_glyphs(images, sizes, labels, names)


def _make_glyphs(images: Bytes, sizes: _Ints, labels: npt.NDArray[np.integer], names: tuple[str, ...]) -> Glyphs:
    numbers = torch.from_numpy(labels.astype(np.int64))
    return Glyphs(torch.from_numpy(images), torch.from_numpy(sizes), numbers, names, torch.arange(len(images)))


def crop_to_ink(images: Bytes, above: int) -> tuple[Bytes, _Ints]:
    """Move the ink of images ``(G, H, W)``, their pixels brighter than ``above``, to the top left corner.

    Returns:
        The images, cut to the size of the largest ink, and the sizes ``(G, 2)`` of their ink; 0 without any.
    """
    rows, columns = (np.greater(images.max(axis=axis), above) for axis in (2, 1))
    top, left = rows.argmax(1)[:, None], columns.argmax(1)[:, None]
    bottom = rows.shape[1] - rows[:, ::-1].argmax(1)[:, None]
    right = columns.shape[1] - columns[:, ::-1].argmax(1)[:, None]
    sizes = np.where(rows.any(1)[:, None], np.concatenate([bottom - top, right - left], axis=1), 0)
    height, width = sizes.max(0)
    # Beyond an image's border there is only ground: any of its pixels will do, as it is blackened below.
    y = (top + np.arange(height)).clip(max=images.shape[1] - 1)
    x = (left + np.arange(width)).clip(max=images.shape[2] - 1)
    moved = images[np.arange(len(images))[:, None, None], y[:, :, None], x[:, None, :]]
    moved[np.broadcast_to(np.arange(height)[:, None] >= sizes[:, 0, None, None], moved.shape)] = 0
    moved[np.broadcast_to(np.arange(width) >= sizes[:, 1, None, None], moved.shape)] = 0
    return moved, sizes


def shrink(image: Bytes, max_side: int) -> Bytes:
    """Shrink an image ``(h, w)`` smoothly and in proportion until no side exceeds ``max_side``; never enlarge it."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((max_side, max_side), Image.Resampling.BILINEAR)
    return np.array(thumbnail)


def split_by_class(glyphs: Glyphs) -> dict[Split, Tensor]:
    """Split each class 70 : 10 : 20, the same way every time. Copies of a glyph stay in one split.

    Returns:
        Positions in ``glyphs`` by split.

    Raises:
        ValueError: If a class has fewer than three different glyphs.
    """
    numbers: dict[bytes, int] = {}
    images = zip(glyphs.images.numpy(), glyphs.sizes.numpy(), strict=True)
    original = np.array([numbers.setdefault(i.tobytes() + s.tobytes(), len(numbers)) for i, s in images])
    classes = glyphs.labels.numpy()[np.unique(original, return_index=True)[1]]
    split_of = np.zeros(len(numbers), np.int64)
    rng = np.random.default_rng(_SPLIT_SEED)
    for number, name in enumerate(glyphs.class_names):
        members = rng.permutation(np.flatnonzero(classes == number))
        if len(members) < len(SPLITS):
            raise ValueError(
                f"class {name!r} has {len(members)} different glyphs, must have at least {len(SPLITS)}:"
                " one each to train, to validate and to test"
            )
        num_test, num_val = (max(1, round(share * len(members))) for share in (_TEST_SHARE, _VAL_SHARE))
        split_of[members[:num_test]] = SPLITS.index("test")
        split_of[members[num_test : num_test + num_val]] = SPLITS.index("val")
    assigned = torch.from_numpy(split_of[original])
    return {split: (assigned == number).nonzero().squeeze(1) for number, split in enumerate(SPLITS)}

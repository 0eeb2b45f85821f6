"""`SeparableMap`: the coordinate map as rows and columns, where the map of every position would be large.

x is the same in every row of an image, and so is its part of the map, apart from rows near a padded border; the same
holds for y and columns. The part is computed and kept for one of the equal rows, and broadcast where it is added. So a
map takes little memory and time where no batch shares it: for single large images, and for one window per sample.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from coordconv_apps.nn.functional import is_channels_last


class EqualPositions(NamedTuple):
    """Positions ``first`` to ``last`` (excluded) of a layer's output, at which the kernel does not reach padding."""

    first: int
    last: int

    def reduced(self, size: int, stride: int) -> int:
        """Return the size of an input of which only one such position is left."""
        return size - stride * (self.last - self.first - 1)


def equal_positions(
    size: int, output_size: int, padding: int, stride: int, dilation: int, kernel_size: int
) -> EqualPositions | None:
    """Return the output positions along one axis that see no padding; None if there are fewer than two.

    Example:
        >>> equal_positions(size=8, output_size=8, padding=1, stride=1, dilation=1, kernel_size=3)
        EqualPositions(first=1, last=7)
    """
    first = -(-padding // stride)
    last = min((padding + size - 1 - dilation * (kernel_size - 1)) // stride + 1, output_size)
    return EqualPositions(first, last) if last - first > 1 else None


class MapPart(NamedTuple):
    """What one coordinate contributes to a map; it is constant over the equal positions of ``axis``.

    ``value`` has the shape ``(N, C, H, W)``, with N equal to 1 or the batch size, and the equal positions once.
    """

    value: Tensor
    axis: int
    equal: EqualPositions

    def add_to(self, y: Tensor) -> None:
        """Add the part to a batch, in place."""
        first, last = self.equal
        if y.shape[self.axis] == last - first:
            y.add_(self.value)
            return
        after = y.shape[self.axis] - last
        places = ((0, 0, first, first), (first, first, last - first, 1), (last, first + 1, after, after))
        for start, own_start, length, own_length in places:
            if length:
                own = self.value.narrow(self.axis, own_start, own_length)
                y.narrow(self.axis, start, length).add_(own)


class SeparableMap(NamedTuple):
    """A map as the sum of its parts."""

    parts: tuple[MapPart, ...]

    @property
    def nbytes(self) -> int:
        """Memory of the parts."""
        return sum(part.value.nbytes for part in self.parts)

    def add_to(self, y: Tensor) -> Tensor:
        """Add the map to a batch, in place, and return the batch."""
        for part in self.parts:
            part.add_to(y)
        return y


def in_format_of(y: Tensor, value: Tensor) -> Tensor:
    """Return ``value`` in the memory format of ``y``: adding tensors of different formats is slow."""
    if is_channels_last(y):  # the strides of a tensor with one row or column would not tell its format
        return value.movedim(1, -1).contiguous().movedim(-1, 1)
    return value.contiguous()

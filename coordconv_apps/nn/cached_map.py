"""`CachedMap`: the coordinate map that a layer keeps in evaluation, and what it was computed from."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from coordconv_apps.nn.separable_map import SeparableMap


class CachedMap(NamedTuple):
    """A cached coordinate map, and the values that it was computed from.

    The parameters' values are kept because no counter shows every change: fused optimizers, ``p.data.mul_()`` as in
    moving averages and target networks, and other processes write without raising a tensor's version.
    """

    value: Tensor | SeparableMap
    key: tuple[Any, ...]
    weight: Tensor
    bias: Tensor | None

    def fits(self, key: tuple[Any, ...], weight: Tensor, bias: Tensor | None) -> bool:
        """Return whether the map is for these settings and parameters."""
        return self.key == key and _same(self.weight, weight) and _same(self.bias, bias)


def is_small(nbytes: int, batch: Tensor) -> bool:
    """Return whether a cache of ``nbytes`` is small: 512 KiB, or a sixteenth of the layer's output ``batch``.

    A network holds the caches of all its layers, but the outputs of few of them, at the same time.
    """
    return nbytes <= max(batch.nbytes // 16, 2**19)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))

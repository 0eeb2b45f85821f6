"""CoordConv as the paper draws it, for the tests to compare with: concatenate coordinate channels, then convolve.

Nothing here uses `coordconv_apps.nn.coords` or the forward of a layer; only a layer's parameters and settings are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordconv_apps.nn.coord_layer import CoordLayer

CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def coordinates(size: Sequence[int], r: bool) -> Tensor:
    """x, y, z and r of every position, (C, *size) in float64: position / (size - 1) * 2 - 1; 0 where the size is 1."""
    axes = [torch.tensor([0.0 if n == 1 else i / (n - 1) * 2 - 1 for i in range(n)], dtype=torch.float64) for n in size]
    channels = list(torch.meshgrid(*axes, indexing="ij"))[::-1]
    if r:
        channels.append(sum((c**2 for c in channels), torch.zeros(())) ** 0.5)
    return torch.stack(channels)


def concatenated(layer: CoordLayer, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
    """Output of ``layer`` for ``x``, by concatenation in each group of channels."""
    if x.dim() == layer.ndim + 1:
        return concatenated(layer, x[None], output_size)[0]
    size = x.shape[2:]
    grid = coordinates(size, str(layer.coords).endswith("r")).to(x).expand(x.shape[0], -1, *size)
    x = torch.cat([torch.cat([group, grid], dim=1) for group in x.chunk(layer.groups, dim=1)], dim=1)
    if layer.transposed:
        return _transposed(layer, x, output_size)
    weight = torch.cat([layer.weight, layer.coord_weight], dim=1)
    pad = _padding(layer)
    x = F.pad(x, pad, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode) if any(pad) else x
    return CONVOLUTION[layer.ndim](x, weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def _padding(layer: CoordLayer) -> list[int]:
    """What `F.pad` adds at the start and end of each axis, last axis first; an odd total has its larger half last."""
    pad = []
    for axis in reversed(range(layer.ndim)):
        if layer.padding == "valid":
            pad += [0, 0]
        elif layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            pad += [total // 2, total - total // 2]
        else:
            pad += [int(layer.padding[axis])] * 2
    return pad


def _transposed(layer: CoordLayer, x: Tensor, output_size: Sequence[int] | None) -> Tensor:
    weight = torch.cat(
        [
            torch.cat(group)
            for group in zip(
                layer.weight.chunk(layer.groups), layer.coord_weight.chunk(layer.groups, dim=1), strict=True
            )
        ]
    )
    assert not isinstance(layer.padding, str)
    extra = layer.output_padding
    convolve = TRANSPOSED[layer.ndim]
    if output_size is not None:
        smallest = convolve(x, weight, None, layer.stride, layer.padding, 0, layer.groups, layer.dilation).shape[2:]
        extra = tuple(wanted - least for wanted, least in zip(output_size, smallest, strict=True))
    return convolve(x, weight, layer.bias, layer.stride, layer.padding, extra, layer.groups, layer.dilation)


def fill(layer: CoordLayer, seed: int = 0) -> None:
    """Give every parameter values of order 1, so that no part of the output is small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

"""The coordinate map: how a CoordConv layer adds position to a convolution at almost no cost.

A CoordConv layer (Liu et al., 2018, section 3) is a convolution whose input has extra channels that hold each
position's own coordinates. Convolution is linear, so

    conv(concat(x, c), concat(w, v)) = conv(x, w) + conv(c, v)

and the second term, the coordinate map, is the same for every sample of a batch. The layers compute it once for one
sample and add it in place; nothing is concatenated and the input is never copied. The bias is part of the map.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The channels-last memory format of a batch, by its number of axes."""


class Geometry(NamedTuple):
    """Arguments of `torch.convolution` with which a layer slides over its coordinate grid."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]


def convolve_grid(grid: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Return one sample's coordinate map plus bias, computed in the grid's precision and rounded once to ``dtype``.

    The map has the shape ``(1, out_channels, *output size)``. Coordinates are the same for every group of input
    channels, hence one group.

    Args:
        grid: Coordinates of shape ``(1, C, *size)``, padded as the layer pads its input.
        weight: The layer's coordinate weight.
        bias: The layer's bias of shape ``(out_channels,)``, or None.
        geometry: The layer's stride, padding and dilation.
        dtype: Type of the result.

    Example:
        >>> from coordconv_apps import coord_grid
        >>> columns = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)  # a 1x1 kernel: x times 1 plus y times 0
        >>> geometry = Geometry((1, 1), (0, 0), (1, 1), False, (0, 0))
        >>> convolve_grid(coord_grid((2, 3))[None], columns, None, geometry, torch.float32)
        tensor([[[[-1.,  0.,  1.],
                  [-1.,  0.,  1.]]]])
    """
    if weight.is_complex():  # torch.convolution has no complex kernel, and the coordinates are real
        real = convolve_grid(grid, weight.real, None if bias is None else bias.real, geometry, grid.dtype)
        imag = convolve_grid(grid, weight.imag, None if bias is None else bias.imag, geometry, grid.dtype)
        return torch.complex(real, imag).to(dtype)
    bias = None if bias is None else bias.to(grid.dtype)
    weight = weight.to(grid.dtype)
    if grid.device.type != "meta" and torch.is_autocast_enabled(grid.device.type):
        with torch.autocast(grid.device.type, enabled=False):
            return torch.convolution(grid, weight, bias, *geometry, 1).to(dtype)
    return torch.convolution(grid, weight, bias, *geometry, 1).to(dtype)


def is_channels_last(x: Tensor) -> bool:
    """Return whether a batch is stored channels-last, and not contiguous as well."""
    # By strides: vmap, which may run over a backward, does not answer is_contiguous(memory_format=...).
    return x.dim() in (4, 5) and x.stride(1) == 1 and not x.is_contiguous()


class AddCoordMap(torch.autograd.Function):
    """``y += conv(grid, weight) + bias`` for a batch ``y`` and one sample of coordinates, in place.

    Autograd's own gradient of a broadcast sum is slow for channels-last batches.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - a context has no type that knows what a function stores on it
        y: Tensor,
        grid: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        """Add the map of `convolve_grid` to ``y``, and return ``y``."""
        ctx.mark_dirty(y)
        ctx.save_for_backward(grid, weight)
        ctx.geometry = geometry
        ctx.bias_size = None if bias is None else list(bias.shape)
        return y.add_(convolve_grid(grid, weight, bias, geometry, y.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        """Return the gradients for ``y``, the weight and the bias; the grid is constant."""
        grid, weight = ctx.saved_tensors
        _, _, need_weight, need_bias, _ = ctx.needs_input_grad
        summed, weight, mask = _batch_sum(grad, grid.dtype), weight.to(grid.dtype), [False, need_weight, need_bias]
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            summed, grid, weight, ctx.bias_size, *ctx.geometry, 1, mask
        )
        return grad, None, grad_weight, grad_bias, None


def _batch_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over the batch axis, kept with size 1, at memory speed in both memory formats."""
    if not is_channels_last(x):
        return x.sum(0, keepdim=True, dtype=dtype)
    # torch reduces the outermost axis of a channels-last tensor about 15 times slower than that of its dense view.
    return x.movedim(1, -1).sum(0, keepdim=True, dtype=dtype).movedim(-1, 1)

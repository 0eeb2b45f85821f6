"""The coordinate map: how a CoordConv layer adds position to a convolution at almost no cost.

A CoordConv layer (Liu et al., 2018, section 3) is a convolution whose input has extra channels that hold each
position's own coordinates. Convolution is linear, so

    conv(concat(x, c), concat(w, v)) = conv(x, w) + conv(c, v)

and the second term, the coordinate map, is the same for every sample of a batch. These layers compute it once
for one sample and add it in place; nothing is concatenated and the input is never copied. In evaluation on a CPU
the map is remembered until a parameter, the input size, dtype or memory format changes. The bias travels with the map.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.conv import _ConvNd

from coordconv_apps.nn.coords import coord_channels, coord_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class _Geometry(NamedTuple):
    """How a layer slides over its coordinate grid: the arguments of `torch.convolution`."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]


def _coord_map(grid: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, dtype: torch.dtype) -> Tensor:
    """One sample's coordinate map plus bias, computed in the grid's precision and rounded once to ``dtype``.

    Coordinates are the same for every group of input channels, hence one group.
    """
    if weight.is_complex():  # torch.convolution has no complex kernel, and the coordinates are real
        real = _coord_map(grid, weight.real, None if bias is None else bias.real, geometry, grid.dtype)
        imag = _coord_map(grid, weight.imag, None if bias is None else bias.imag, geometry, grid.dtype)
        return torch.complex(real, imag).to(dtype)
    if bias is not None:
        bias = bias.to(grid.dtype)
    weight = weight.to(grid.dtype)
    if grid.device.type != "meta" and torch.is_autocast_enabled(grid.device.type):
        with torch.autocast(grid.device.type, enabled=False):
            return torch.convolution(grid, weight, bias, *geometry, 1).to(dtype)
    return torch.convolution(grid, weight, bias, *geometry, 1).to(dtype)


def _per_axis(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """One number per axis: model code sets ``layer.stride = 1`` on a built layer, which torch allows."""
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def _is_channels_last(x: Tensor) -> bool:
    # By strides: vmap, which may run over a backward, does not answer is_contiguous(memory_format=...).
    return x.dim() in _CHANNELS_LAST and x.stride(1) == 1 and not x.is_contiguous()


def _batch_sum(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum over the batch axis, kept with size 1, at memory speed in both memory formats."""
    if not _is_channels_last(x):
        return x.sum(0, keepdim=True, dtype=dtype)
    # torch reduces the outermost axis of a channels-last tensor about 15 times slower than that of its dense view.
    return x.movedim(1, -1).sum(0, keepdim=True, dtype=dtype).movedim(-1, 1)


class _AddCoordMap(torch.autograd.Function):
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
        geometry: _Geometry,
    ) -> Tensor:
        ctx.mark_dirty(y)
        ctx.save_for_backward(grid, weight)
        ctx.geometry = geometry
        ctx.bias_size = None if bias is None else list(bias.shape)
        return y.add_(_coord_map(grid, weight, bias, geometry, y.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        grid, weight = ctx.saved_tensors
        _, _, need_weight, need_bias, _ = ctx.needs_input_grad
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _batch_sum(grad, grid.dtype),
            grid,
            weight.to(grid.dtype),
            ctx.bias_size,
            *ctx.geometry,
            1,
            [False, need_weight, need_bias],
        )
        return grad, None, grad_weight, grad_bias, None


class _Remembered(NamedTuple):
    """A coordinate map that is ready to be added, and what it was computed from.

    The parameters' values are kept, for nothing else tells of every change: fused optimizers, ``p.data.mul_()`` as
    in moving averages and target networks, and other processes all write without counting up a tensor's version.
    """

    value: Tensor
    key: tuple[Any, ...]
    weight: Tensor
    bias: Tensor | None

    def fits(self, key: tuple[Any, ...], weight: Tensor, bias: Tensor | None) -> bool:
        return (
            self.key == key
            and _same(self.weight, weight)
            and (self.bias is bias or (self.bias is not None and bias is not None and _same(self.bias, bias)))
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


class CoordLayer(_ConvNd):
    """What all CoordConv layers share: the coordinate weight, its map, and how the map is added."""

    coords: str
    coord_weight: nn.Parameter
    ndim: ClassVar[int]

    _grid: tuple[tuple[Any, ...], Tensor] | None = None
    _remembered: _Remembered | None = None

    def _add_coords(self, coords: str) -> None:
        """Give a layer that is otherwise built its coordinate weight, uninitialised."""
        channels = coord_channels(coords, self.ndim)
        shape = (channels, self.out_channels) if self.transposed else (self.out_channels, channels)
        self.coords = coords
        self.coord_weight = nn.Parameter(self.weight.new_empty((*shape, *self.kernel_size)))

    def reset_parameters(self) -> None:
        """Draw all weights as torch draws those of one convolution over features and coordinates together."""
        if "coord_weight" in self._parameters:  # not yet, when torch's constructor calls this
            for parameter in (self.weight, self.bias, self.coord_weight):
                if parameter is not None:
                    self.draw(parameter)

    def draw(self, parameter: Tensor) -> None:
        """Fill one of the layer's parameters with its initial distribution, uniform in +-1 / sqrt(fan-in)."""
        channels = (
            self.out_channels // self.groups  # torch counts the second axis of a transposed weight
            if self.transposed
            else self.in_channels // self.groups + self.coord_weight.shape[1]
        )
        bound = 1 / math.sqrt(channels * math.prod(self.kernel_size))
        nn.init.uniform_(parameter, -bound, bound)

    def _padded_grid(self, size: tuple[int, ...], like: Tensor) -> Tensor:
        """Coordinates of a canvas with the layer's padding around them, as one sample ``(1, C, *padded size)``.

        Zero padding pads coordinates with zeros, as in the paper. Half-precision weights get single-precision
        coordinates: rounded to half they would be off by whole pixels on large canvases.
        """
        double = self.coord_weight.dtype in (torch.float64, torch.complex128)
        dtype = torch.float64 if double else torch.float32
        grid = coord_sample(size, r=self.coords.endswith("r"), dtype=dtype, device=like.device)
        padding = self._grid_padding()
        if any(padding):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            grid = F.pad(grid, padding, mode=mode)
        return grid

    def _grid_padding(self) -> list[int]:
        """The layer's padding as `F.pad` takes it, by the attributes that torch's own forward reads.

        They may have changed since the layer was built: segmentation models turn strides into dilation that way.
        """
        if self.transposed:
            return [0] * (2 * self.ndim)
        if self.padding_mode != "zeros":
            return list(self._reversed_padding_repeated_twice)
        if not isinstance(self.padding, str):
            return [p for p in reversed(_per_axis(self.padding, self.ndim)) for _ in range(2)]
        if self.padding == "valid":
            return [0] * (2 * self.ndim)
        totals = [d * (k - 1) for d, k in zip(_per_axis(self.dilation, self.ndim), self.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]

    def _remembered_grid(self, size: tuple[int, ...], like: Tensor) -> Tensor:
        """The grid above in the memory format of ``like``; the last one used is kept."""
        channels_last = _is_channels_last(like)
        key = (
            size,
            self.coord_weight.dtype,
            like.device,
            channels_last,
            self.padding,
            self.dilation,
            tuple(self._reversed_padding_repeated_twice),
            self.padding_mode,
            self.coords,
        )
        remembered = self._grid  # read once: another thread may put its own there at any time
        if remembered is not None and remembered[0] == key:
            return remembered[1]
        with torch.inference_mode(False), torch.no_grad():
            grid = self._padded_grid(size, like)
            if channels_last:
                grid = grid.contiguous(memory_format=_CHANNELS_LAST[grid.dim()])
        self._grid = (key, grid)
        return grid

    def _add_map(self, y: Tensor, input: Tensor) -> Tensor:
        """Add the coordinate map and the bias to the convolution ``y`` of ``input``."""
        if (
            torch.compiler.is_compiling()
            or torch._C._is_tracing()
            or torch._C._are_functorch_transforms_active()
            or type(y) is not Tensor
            or forward_ad._current_level >= 0  # input or any parameter may be a dual number
            or (y.is_cuda and torch.cuda.is_current_stream_capturing())  # a graph must own all that it reads
        ):
            return y + self._map(y, self._padded_grid(self._size(input), y), input)
        weight, bias = self.coord_weight, self.bias
        if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
            grid = self._remembered_grid(self._size(input), y)
            if y.dim() == self.ndim + 1 or y.is_complex():
                return y + self._map(y, grid, input)
            return _AddCoordMap.apply(y, grid, weight, bias, self._geometry(y, input))  # type: ignore[no-any-return]  # has no types
        return y.add_(self._constant_map(y, input, weight, bias))

    def _constant_map(self, y: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The map where it needs no gradient; in evaluation it is remembered."""
        # On other devices than the CPU the comparison of values would wait for all work that is under way.
        remember = not self.training and y.is_cpu
        if remember:
            key = self._key(y, input)
            remembered = self._remembered  # read once: another thread may put its own there at any time
            if remembered is not None and remembered.fits(key, weight, bias):
                return remembered.value
        with torch.inference_mode(False), torch.no_grad():  # a remembered map may be used in any mode later
            value = self._map(y, self._remembered_grid(self._size(input), y), input)
            if remember:
                copies = (weight.detach().clone(), None if bias is None else bias.detach().clone())
                self._remembered = _Remembered(value, key, *copies)
        return value

    def _map(self, y: Tensor, grid: Tensor, input: Tensor) -> Tensor:
        value = _coord_map(grid, self.coord_weight, self.bias, self._geometry(y, input), y.dtype)
        return value if y.dim() == self.ndim + 2 else value[0]

    def coord_map(self, input: Tensor, output: Tensor) -> Tensor:
        """What coordinates and bias add to every sample of ``output``, the layer's result for ``input``.

        Args:
            input: Features of shape ``(B, C, *size)`` or ``(C, *size)``; only the size counts.
            output: The layer's output for them; only size and type count.

        Returns:
            The map, of shape ``(out_channels, *output size)``.
        """
        grid = self._padded_grid(self._size(input), output)
        return _coord_map(grid, self.coord_weight, self.bias, self._geometry(output, input), output.dtype)[0]

    def _key(self, y: Tensor, input: Tensor) -> tuple[Any, ...]:
        return (
            input.shape,
            y.shape,
            y.stride(),
            y.dtype,
            y.device,
            self.stride,
            self.padding,
            self.dilation,
            self.padding_mode,
        )

    def _size(self, input: Tensor) -> tuple[int, ...]:
        return tuple(input.shape[-self.ndim :])

    def _geometry(self, y: Tensor, input: Tensor) -> _Geometry:
        """How the layer slides over its grid, where it makes ``y`` of ``input``."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> CoordLayer:
        """Set training or evaluation mode. Training forgets the remembered map, whose memory it needs."""
        if mode:  # what is in evaluation mode already may be told so before each call
            self._remembered = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # What is remembered can be computed again: copies and pickles go without it.
        return {k: v for k, v in self.__dict__.items() if k not in ("_grid", "_remembered")}

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401 - handed on to torch
        **kwargs: Any,  # noqa: ANN401 - handed on to torch
    ) -> None:
        # A plain convolution's state dict loads as it is, and gives that convolution's outputs.
        key = prefix + "coord_weight"
        weight = state_dict.get(prefix + "weight")
        if weight is not None and key not in state_dict:
            # Of the loaded weight's type and device, which assign=True gives to the layer.
            state_dict = {**state_dict, key: weight.new_zeros(self.coord_weight.shape)}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """The convolution's own description and the coordinates."""
        return f"{super().extra_repr()}, coords={self.coords!r}"  # type: ignore[no-untyped-call]  # torch's


class CoordConv(CoordLayer):
    """The forward of `CoordConv1d`, `CoordConv2d` and `CoordConv3d`."""

    def _geometry(self, y: Tensor, input: Tensor) -> _Geometry:
        no_padding = (0,) * self.ndim  # the grid carries its padding already
        stride, dilation = _per_axis(self.stride, self.ndim), _per_axis(self.dilation, self.ndim)
        return _Geometry(stride, no_padding, dilation, False, no_padding)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve features and coordinates.

        Args:
            input: Features of shape ``(B, C, *size)`` or ``(C, *size)``.

        Returns:
            Features of the shape that the plain convolution returns.
        """
        return self._add_map(self._conv_forward(input, self.weight, None), input)


class CoordConvTranspose(CoordLayer):
    """The forward of the transposed layers."""

    _transposed: ClassVar[Callable[..., Tensor]]

    def _geometry(self, y: Tensor, input: Tensor) -> _Geometry:
        assert not isinstance(self.padding, str)  # transposed layers take no strings
        stride, padding, dilation = (_per_axis(v, self.ndim) for v in (self.stride, self.padding, self.dilation))
        output_padding = []
        for axis in range(self.ndim):
            smallest = (input.shape[axis - self.ndim] - 1) * stride[axis] - 2 * padding[axis]
            smallest += dilation[axis] * (self.kernel_size[axis] - 1) + 1
            output_padding.append(y.shape[axis - self.ndim] - smallest)
        return _Geometry(stride, padding, dilation, True, tuple(output_padding))

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the transposed convolution to features and coordinates of the input.

        Args:
            input: Features of shape ``(B, C, *size)`` or ``(C, *size)``.
            output_size: Spatial size wanted, where the stride allows several; as in `torch.nn.ConvTranspose2d`.

        Returns:
            Features of the shape that the plain transposed convolution returns.
        """
        output_padding = self._output_padding(  # type: ignore[operator]  # of the torch layer
            input, output_size, self.stride, self.padding, self.kernel_size, self.ndim, self.dilation
        )
        y = self._transposed(
            input, self.weight, None, self.stride, self.padding, output_padding, self.groups, self.dilation
        )
        return self._add_map(y, input)

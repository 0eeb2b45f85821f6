"""Base of the CoordConv layers: their coordinate weight and its map, which is computed or taken from a cache.

In evaluation on a CPU a map that is small beside the batch is cached until a parameter, the input size, dtype or
memory format changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps.nn.add_coords import concatenate_coords
from coordconv_apps.nn.cached_map import CachedMap, is_small
from coordconv_apps.nn.coords import CoordsLike, as_coordinates, layer_coords
from coordconv_apps.nn.functional import CHANNELS_LAST, AddCoordMap, Geometry, convolve_grid, is_channels_last
from coordconv_apps.nn.fx_leaf import Proxy, leaf_call
from coordconv_apps.nn.grid import AXES, Coordinates
from coordconv_apps.nn.separable_map import MapPart, SeparableMap, equal_positions, in_format_of
from coordconv_apps.nn.torch_internals import (
    ConvNd,
    convolve,
    convolve_is_replaced,
    forward_mode_active,
    functorch_active,
    repeated_padding,
    resolve_output_padding,
)
from coordconv_apps.nn.window_layer import SeesWindows, check_window_count


def _per_axis(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Return one number per axis: model code sets ``layer.stride = 1`` on a built layer, which torch allows."""
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def _zero_missing_coord_weight(layer: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Add a coordinate weight of zeros to a plain convolution's state dict: the layer then gives its outputs."""
    own = dict(layer.named_parameters())
    if "coord_weight" not in own or prefix + "coord_weight" in state_dict:
        return
    # Weight and spectral normalisation and pruning save what they compute the weight from, under other names.
    names = [prefix + name for name in own if "weight" in name and "coord_weight" not in name]
    loaded = [state_dict[name] for name in names if name in state_dict]
    if loaded:
        # With the loaded weight's type and device, which assign=True gives to the layer.
        state_dict[prefix + "coord_weight"] = loaded[0].new_zeros(own["coord_weight"].shape)


class CoordLayer(SeesWindows, ConvNd):
    """Base of all CoordConv layers: holds the coordinate weight, computes its map and adds it to the output."""

    coords: str | Coordinates
    coord_weight: nn.Parameter

    _grid: tuple[tuple[Any, ...], Tensor] | None = None
    _cached_map: CachedMap | None = None

    not_copied = SeesWindows.not_copied | {"_grid", "_cached_map"}

    def __init__(self, *args: Any, coords: CoordsLike, **options: Any) -> None:  # noqa: ANN401 - torch's arguments
        super().__init__(*args, **options)
        self.create_coord_weight(coords)
        self.reset_parameters()

    def create_coord_weight(self, coords: CoordsLike) -> None:
        """Create the coordinate weight of a constructed convolution, without initial values."""
        self.coords = layer_coords(coords, self.ndim)
        channels = as_coordinates(self.coords).count(self.ndim)
        shape = (channels, self.out_channels) if self.transposed else (self.out_channels, channels)
        self.coord_weight = nn.Parameter(self.weight.new_empty((*shape, *self.kernel_size)))
        self.register_load_state_dict_pre_hook(_zero_missing_coord_weight)  # type: ignore[no-untyped-call]  # torch's

    def become_plain(self, plain: type[nn.Module]) -> None:
        """Make this layer the ``plain`` convolution without bias, in place; everything else that is set on it stays."""
        del self.coord_weight
        self.bias = None
        for name in ("coords", "sampling", *self.not_copied):
            vars(self).pop(name, None)
        self.__class__ = plain  # type: ignore[assignment]  # the base class

    def reset_parameters(self) -> None:
        """Draw all weights as torch draws those of one convolution over features and coordinates together."""
        if hasattr(self, "coord_weight"):  # not yet, when torch's constructor calls this
            for parameter in (self.weight, self.bias, self.coord_weight):
                if parameter is not None:
                    self.init_parameter(parameter)

    def init_parameter(self, parameter: Tensor) -> None:
        """Fill one of the layer's parameters with its initial distribution, uniform in +-1 / sqrt(fan-in)."""
        channels = (
            self.out_channels // self.groups  # torch counts the second axis of a transposed weight
            if self.transposed
            else self.in_channels // self.groups + self.coord_weight.shape[1]
        )
        bound = 1 / math.sqrt(channels * math.prod(self.kernel_size))
        nn.init.uniform_(parameter, -bound, bound)

    def coord_map(self, input: Tensor, output: Tensor) -> Tensor:
        """Return the map, bias included, that the layer adds to every sample of ``output``, its result for ``input``.

        The map has the shape ``(out_channels, *output size)``. Only the sizes and types of the two tensors count.

        Raises:
            ValueError: If each sample sees a window of its own, and so gets another map.
        """
        grid = self._padded_grid(self._size(input), output)
        if len(grid) > 1:
            raise ValueError(f"one map for all samples needs one window, and the layer sees {len(grid)}")
        return convolve_grid(grid, self.coord_weight, self.bias, self._geometry(output, input), output.dtype)[0]

    def _geometry(self, y: Tensor, input: Tensor) -> Geometry:
        """Return how the layer slides over its grid to make ``y`` of ``input``."""
        raise NotImplementedError

    def _size(self, input: Tensor) -> tuple[int, ...]:
        return tuple(input.shape[-self.ndim :])

    def _padded_grid(self, size: tuple[int, ...], like: Tensor, coords: Coordinates | None = None) -> Tensor:
        """Return coordinates, by default the layer's, with padding around them, as one sample ``(1, C, *padded size)``.

        Zero padding pads coordinates with zeros, as in the paper. Half-precision weights get single-precision
        coordinates: rounded to half they would be off by whole pixels on large canvases.
        """
        double = self.coord_weight.dtype in (torch.float64, torch.complex128)
        dtype = torch.float64 if double else torch.float32
        coords = as_coordinates(self.coords) if coords is None else coords
        grid = coords.sample(size, window=self.window, dtype=dtype, device=like.device)
        check_window_count(grid, like, self.ndim)
        padding = self._grid_padding()
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(grid, padding, mode=mode) if any(padding) else grid

    def _grid_padding(self) -> list[int]:
        """Return the layer's padding as `F.pad` takes it, by the attributes that torch's own forward reads.

        They may have changed since the layer was built: segmentation models turn strides into dilation that way.
        """
        if not self.transposed and self.padding_mode != "zeros":
            return list(repeated_padding(self))
        if self.transposed or self.padding == "valid":
            return [0] * (2 * self.ndim)
        if not isinstance(self.padding, str):
            return [p for p in reversed(_per_axis(self.padding, self.ndim)) for _ in range(2)]
        totals = [d * (k - 1) for d, k in zip(_per_axis(self.dilation, self.ndim), self.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]

    def _cached_grid(self, size: tuple[int, ...], like: Tensor) -> Tensor:
        """Return the padded grid in the memory format of the output ``like``; the last one used is kept if it pays."""
        channels_last = is_channels_last(like)
        settings = (self.padding, repeated_padding(self), self.padding_mode, self.dilation, self.coords, self.window)
        key = (size, self.coord_weight.dtype, like.device, channels_last, settings)
        cached = self._grid  # read once: another thread may replace it at any time
        if cached is not None and cached[0] == key:
            return cached[1]
        with torch.inference_mode(False), torch.no_grad():
            grid = self._padded_grid(size, like)
            if channels_last:
                grid = grid.contiguous(memory_format=CHANNELS_LAST[grid.dim()])
        # Training holds all layers' outputs anyway; and on other devices many small kernels take longer.
        if torch.is_grad_enabled() or not like.is_cpu or is_small(grid.nbytes, like):
            self._grid = (key, grid)
        return grid

    def _add_map(self, y: Tensor, input: Tensor) -> Tensor:
        """Add the coordinate map and the bias to the convolution ``y`` of ``input``."""
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # documented, not in __all__
            or functorch_active()
            or type(y) is not Tensor
            or forward_mode_active()  # input or any parameter may be a dual number
            or (y.is_cuda and torch.cuda.is_current_stream_capturing())  # a graph must own all that it reads
        ):
            return y + self._map(y, self._padded_grid(self._size(input), y), input)
        value: Tensor | SeparableMap
        weight, bias = self.coord_weight, self.bias
        learns = torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad))
        if self.window is not None and isinstance(self.window.origin, Tensor):  # comparing values would synchronise
            parts = self._separable_map(y, input) if not learns and self._map_is_large(y) else None
            value = self._map(y, self._padded_grid(self._size(input), y), input) if parts is None else parts
        elif learns:
            grid = self._cached_grid(self._size(input), y)
            if y.dim() == self.ndim + 1 or y.is_complex():
                return y + self._map(y, grid, input)
            return AddCoordMap.apply(y, grid, weight, bias, self._geometry(y, input))  # type: ignore[no-any-return]  # has no types
        else:
            value = self._constant_map(y, input, weight, bias)
        return value.add_to(y) if isinstance(value, SeparableMap) else y.add_(value)

    def _constant_map(self, y: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | SeparableMap:
        """Return the map where it needs no gradient; in evaluation it is cached if it pays."""
        # On other devices than the CPU, comparing values would synchronise with the device.
        cacheable = not self.training and y.is_cpu
        if cacheable:
            settings = (self.stride, self.padding, self.dilation, self.padding_mode, self.coords, self.window)
            key = (input.shape, y.shape, y.stride(), y.dtype, y.device, settings)
            cached = self._cached_map  # read once: another thread may replace it at any time
            if cached is not None and cached.fits(key, weight, bias):
                return cached.value
        with torch.inference_mode(False), torch.no_grad():  # a cached map may be used in any mode later
            parts = self._separable_map(y, input) if cacheable and self._map_is_large(y) else None
            value = self._map(y, self._cached_grid(self._size(input), y), input) if parts is None else parts
            if cacheable and is_small(value.nbytes, y):
                copies = (weight.detach().clone(), None if bias is None else bias.detach().clone())
                self._cached_map = CachedMap(value, key, *copies)
        return value

    def _separable_map(self, y: Tensor, input: Tensor) -> SeparableMap | None:
        """Return the map as rows and columns, or None where it does not have that form or would be rounded twice."""
        return None

    def _map_is_large(self, y: Tensor) -> bool:
        """Return whether the map of every position is large beside the batch ``y``, or another one for each sample."""
        if any(isinstance(place, Tensor) and place.dim() == 2 and len(place) > 1 for place in self.window or ()):
            return True
        return not is_small(y.nbytes // max(y.shape[0], 1) if y.dim() == self.ndim + 2 else y.nbytes, y)

    def _map(self, y: Tensor, grid: Tensor, input: Tensor) -> Tensor:
        value = convolve_grid(grid, self.coord_weight, self.bias, self._geometry(y, input), y.dtype)
        return value if y.dim() == self.ndim + 2 else value[0]

    def train(self, mode: bool = True) -> CoordLayer:
        """Set training or evaluation mode. Training drops the cached map to free its memory."""
        if mode:  # evaluation keeps it: callers may set that mode before each call
            self._cached_map = None
        return super().train(mode)

    def extra_repr(self) -> str:
        """Return the convolution's own description and the coordinates."""
        return f"{super().extra_repr()}, coords={self.coords!r}"  # type: ignore[no-untyped-call]  # torch's


class CoordConv(CoordLayer):
    """The forward of `CoordConv1d`, `CoordConv2d` and `CoordConv3d`."""

    def _geometry(self, y: Tensor, input: Tensor) -> Geometry:
        no_padding = (0,) * self.ndim  # the grid carries its padding already
        stride, dilation = _per_axis(self.stride, self.ndim), _per_axis(self.dilation, self.ndim)
        return Geometry(stride, no_padding, dilation, False, no_padding)

    def _separable_map(self, y: Tensor, input: Tensor) -> SeparableMap | None:
        coords = as_coordinates(self.coords)
        separable = coords.function is None and "r" not in coords.channels and self.padding_mode == "zeros"
        if not separable or self.ndim != 2 or y.dim() != 4 or not y.is_cpu or y.dtype != self.coord_weight.dtype:
            return None
        if y.dtype not in (torch.float32, torch.float64):
            return None
        size, padding, geometry = self._size(input), self._grid_padding(), self._geometry(y, input)
        stride, dilation = geometry.stride, geometry.dilation
        axes = [AXES.index(name) for name in coords.channels]
        # x is constant along the first spatial axis, y along the second.
        equal = [
            equal_positions(size[i], y.shape[i + 2], padding[2 - 2 * i], stride[i], dilation[i], self.kernel_size[i])
            for i in axes
        ]
        if None in equal:
            return None
        parts, bias = [], self.bias
        for channel, (name, across, same) in enumerate(zip(coords.channels, axes, equal, strict=True)):
            assert same is not None
            small = tuple(same.reduced(n, stride[i]) if i == across else n for i, n in enumerate(size))
            grid, weight = self._padded_grid(small, y, coords.only(name)), self.coord_weight[:, channel, None]
            part = convolve_grid(grid, weight.contiguous(), bias, geometry, y.dtype)
            parts.append(MapPart(in_format_of(y, part), 2 + across, same))
            bias = None
        return SeparableMap(tuple(parts))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve features ``(B, C, *size)`` or ``(C, *size)`` and the coordinates."""
        if isinstance(input, Proxy):
            return leaf_call(self, input)
        self.next_window()
        if convolve_is_replaced(self):
            return self._forward_concatenated(input)
        return self._add_map(convolve(self, input, self.weight, None), input)

    def _forward_concatenated(self, input: Tensor) -> Tensor:
        """Apply a convolution of unknown kind, as the paper draws the layer, to features and coordinates together."""
        channel_axis = -self.ndim - 1
        groups = [
            concatenate_coords(group, self.coords, self.ndim, self.window)
            for group in input.chunk(self.groups, channel_axis)
        ]
        weight = torch.cat([self.weight, self.coord_weight], 1)
        return convolve(self, torch.cat(groups, channel_axis), weight, self.bias)


class CoordConvTranspose(CoordLayer):
    """The forward of the transposed layers."""

    _transposed: ClassVar[Callable[..., Tensor]]

    def _geometry(self, y: Tensor, input: Tensor) -> Geometry:
        assert not isinstance(self.padding, str)  # transposed layers take no strings
        stride, padding, dilation = (_per_axis(v, self.ndim) for v in (self.stride, self.padding, self.dilation))
        axes = zip(self._size(y), self._size(input), self.kernel_size, stride, padding, dilation, strict=True)
        output_padding = tuple(made - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for made, n, k, s, p, d in axes)
        return Geometry(stride, padding, dilation, True, output_padding)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the transposed convolution to features ``(B, C, *size)`` or ``(C, *size)`` and their coordinates.

        ``output_size`` is the spatial size wanted, where the stride allows several; as in `torch.nn.ConvTranspose2d`.
        """
        if isinstance(input, Proxy):
            return leaf_call(self, input, output_size)
        self.next_window()
        extra = resolve_output_padding(self, input, output_size)
        y = self._transposed(input, self.weight, None, self.stride, self.padding, extra, self.groups, self.dilation)
        return self._add_map(y, input)

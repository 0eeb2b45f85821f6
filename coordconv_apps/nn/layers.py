"""The CoordConv layers, drop-in replacements of torch's convolutions; `coordconv_apps.nn.functional` does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps.nn.coords import coord_channels, coord_grid
from coordconv_apps.nn.functional import CoordConv, CoordConvTranspose

if TYPE_CHECKING:
    from torch.nn.common_types import _size_1_t, _size_2_t, _size_3_t

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class CoordConv1d(CoordConv, nn.Conv1d):
    """`torch.nn.Conv1d` that also sees where it is: `CoordConv2d` for one axis.

    All arguments but ``coords`` are those of `torch.nn.Conv1d`.

    Args:
        coords: ``"x"`` or ``"xr"``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kW)``.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(out_channels, 1 or 2, kW)``.

    Raises:
        ValueError: If ``coords`` is neither, or an argument is one that `torch.nn.Conv1d` refuses.

    Shape:
        Input ``(B, in_channels, W)`` or ``(in_channels, W)``; output as `torch.nn.Conv1d`.
    """

    ndim = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: str | _size_1_t = 0,
        dilation: _size_1_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "x",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class CoordConv2d(CoordConv, nn.Conv2d):
    """`torch.nn.Conv2d` that also sees where it is (Liu et al., 2018, section 3).

    Equal, to rounding, to a convolution of the input with coordinate channels concatenated to it: ``x``, ``y`` in
    [-1, 1] and optionally ``r``, the distance from the centre. With grouped convolutions every group sees the
    coordinates. A plain convolution's state dict loads as it is and gives that convolution's outputs.

    Args:
        in_channels: Number of input channels, without the coordinates.
        out_channels: Number of output channels.
        kernel_size: As in `torch.nn.Conv2d`, like all arguments up to ``dtype``.
        stride: Step of the kernel.
        padding: Added on both sides of each axis, or ``"same"`` or ``"valid"``. Coordinates are padded like the input.
        dilation: Distance of the kernel's taps.
        groups: Number of groups of input and output channels.
        bias: Whether to add a bias to the output.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        device: Device of the parameters.
        dtype: Type of the parameters.
        coords: ``"xy"`` or ``"xyr"``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kH, kW)``, as in `torch.nn.Conv2d`.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(out_channels, 2 or 3, kH, kW)``: the weight of the coordinate channels.

    Raises:
        ValueError: If ``coords`` is neither of the two, or an argument is one that `torch.nn.Conv2d` refuses.

    Shape:
        Input ``(B, in_channels, H, W)`` or ``(in_channels, H, W)``; output as `torch.nn.Conv2d`.
    """

    ndim = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "xy",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class CoordConv3d(CoordConv, nn.Conv3d):
    """`torch.nn.Conv3d` that also sees where it is: `CoordConv2d` for three axes.

    All arguments but ``coords`` are those of `torch.nn.Conv3d`.

    Args:
        coords: ``"xyz"`` or ``"xyzr"``.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kD, kH, kW)``.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(out_channels, 3 or 4, kD, kH, kW)``.

    Raises:
        ValueError: If ``coords`` is neither, or an argument is one that `torch.nn.Conv3d` refuses.

    Shape:
        Input ``(B, in_channels, D, H, W)`` or ``(in_channels, D, H, W)``; output as `torch.nn.Conv3d`.
    """

    ndim = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: str | _size_3_t = 0,
        dilation: _size_3_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "xyz",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class CoordConvTranspose1d(CoordConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` that also sees where it is: `CoordConvTranspose2d` for one axis.

    All arguments but ``coords`` are those of `torch.nn.ConvTranspose1d`.

    Args:
        coords: ``"x"`` or ``"xr"``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kW)``.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(1 or 2, out_channels, kW)``.

    Raises:
        ValueError: If ``coords`` is neither, or an argument is one that `torch.nn.ConvTranspose1d` refuses.

    Shape:
        Input ``(B, in_channels, W)`` or ``(in_channels, W)``; output as `torch.nn.ConvTranspose1d`.
    """

    ndim = 1
    _transposed = staticmethod(F.conv_transpose1d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: _size_1_t = 0,
        output_padding: _size_1_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_1_t = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "x",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class CoordConvTranspose2d(CoordConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` that also sees where it is (Liu et al., 2018, section 3).

    Equal, to rounding, to a transposed convolution of the input with its coordinate channels concatenated to it.

    Args:
        in_channels: Number of input channels, without the coordinates.
        out_channels: Number of output channels.
        kernel_size: As in `torch.nn.ConvTranspose2d`, like all arguments up to ``dtype``.
        stride: Distance of the inputs in the output.
        padding: ``dilation * (kernel_size - 1) - padding`` zeros are added on both sides of the input.
        output_padding: Size added on one side of the output.
        groups: Number of groups of input and output channels; every group sees the coordinates.
        bias: Whether to add a bias to the output.
        dilation: Distance of the kernel's taps.
        padding_mode: ``"zeros"``, the only one that torch has here.
        device: Device of the parameters.
        dtype: Type of the parameters.
        coords: ``"xy"`` or ``"xyr"``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kH, kW)``, as in `torch.nn.ConvTranspose2d`.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(2 or 3, out_channels, kH, kW)``: the weight of the coordinate channels.

    Raises:
        ValueError: If ``coords`` is neither of the two, or an argument is one that `torch.nn.ConvTranspose2d` refuses.

    Shape:
        Input ``(B, in_channels, H, W)`` or ``(in_channels, H, W)``; output as `torch.nn.ConvTranspose2d`.
    """

    ndim = 2
    _transposed = staticmethod(F.conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t = 0,
        output_padding: _size_2_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_2_t = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "xy",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class CoordConvTranspose3d(CoordConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` that also sees where it is: `CoordConvTranspose2d` for three axes.

    All arguments but ``coords`` are those of `torch.nn.ConvTranspose3d`.

    Args:
        coords: ``"xyz"`` or ``"xyzr"``.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kD, kH, kW)``.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(3 or 4, out_channels, kD, kH, kW)``.

    Raises:
        ValueError: If ``coords`` is neither, or an argument is one that `torch.nn.ConvTranspose3d` refuses.

    Shape:
        Input ``(B, in_channels, D, H, W)`` or ``(in_channels, D, H, W)``; output as `torch.nn.ConvTranspose3d`.
    """

    ndim = 3
    _transposed = staticmethod(F.conv_transpose3d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_3_t,
        stride: _size_3_t = 1,
        padding: _size_3_t = 0,
        output_padding: _size_3_t = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _size_3_t = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: str = "xyz",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._add_coords(coords)
        self.reset_parameters()


class AddCoords(nn.Module):
    """Concatenate coordinate channels to the input, as the paper draws it (Liu et al., 2018, figure 3).

    For networks that want the coordinates themselves; a convolution right after it is cheaper as a CoordConv layer.

    Args:
        coords: ``"x"``, ``"xy"`` or ``"xyz"``, as many as the input has spatial axes, optionally followed by ``"r"``.

    Raises:
        ValueError: If ``coords`` is none of these.

    Shape:
        Input ``(B, C, *size)`` or ``(C, *size)``; output with ``C + len(coords)`` channels, the coordinates last.
    """

    def __init__(self, coords: str = "xy") -> None:
        super().__init__()
        self.ndim = len(coords.removesuffix("r"))
        if not 1 <= self.ndim <= 3 or not coords.startswith("x"):
            raise ValueError(f"coords={coords!r} is not one of 'x', 'xy', 'xyz', each optionally followed by 'r'")
        coord_channels(coords, self.ndim)
        self.coords = coords

    def forward(self, input: Tensor) -> Tensor:
        """Append the coordinate channels."""
        size = tuple(input.shape[-self.ndim :])
        if input.dim() not in (self.ndim + 1, self.ndim + 2):
            raise ValueError(
                f"input has {input.dim()} axes; coords={self.coords!r} needs (C, *size) or (B, C, *size) "
                f"with {self.ndim} spatial axes"
            )
        grid = coord_grid(size, r=self.coords.endswith("r"), dtype=input.dtype, device=input.device)
        return torch.cat([input, grid.expand(*input.shape[: -self.ndim - 1], *grid.shape)], dim=-self.ndim - 1)

    def extra_repr(self) -> str:
        """The coordinates."""
        return f"coords={self.coords!r}"

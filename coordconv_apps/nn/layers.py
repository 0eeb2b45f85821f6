"""The CoordConv layers, drop-in replacements of torch's convolutions; `coordconv_apps.nn.coord_layer` does the work."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from coordconv_apps.nn.coord_layer import CoordConv, CoordConvTranspose, CoordLayer
from coordconv_apps.nn.coords import CoordsLike

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class CoordConv1d(CoordConv, nn.Conv1d):
    """`torch.nn.Conv1d` that also sees positions: `CoordConv2d` for one axis.

    Args:
        coords: ``"x"`` or ``"xr"``, or `Coordinates`; all other arguments are those of `torch.nn.Conv1d`.

    Example:
        >>> CoordConv1d(3, 4, kernel_size=3, padding=1)(torch.rand(2, 3, 9)).shape
        torch.Size([2, 4, 9])
    """

    ndim = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "x",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(*shape, groups, bias, padding_mode, device, dtype, coords=coords)


class CoordConv2d(CoordConv, nn.Conv2d):
    """`torch.nn.Conv2d` that also sees the position of each pixel (Liu et al., 2018, section 3).

    Equal, to rounding, to a convolution of the input with coordinate channels concatenated to it: ``x`` and ``y`` in
    [-1, 1] and optionally ``r``, the distance from the centre. In a grouped convolution every group sees the
    coordinates. A plain convolution's state dict loads as it is and gives that convolution's outputs.

    Args:
        in_channels: Number of input channels, without the coordinates.
        out_channels: Number of output channels.
        kernel_size: Size of the kernel; this and all arguments up to ``dtype`` are those of `torch.nn.Conv2d`.
        stride: Step of the kernel.
        padding: Padding on both sides of each axis, ``"same"`` or ``"valid"``. Coordinates are padded like the input.
        dilation: Spacing between the elements of the kernel.
        groups: Number of groups of input and output channels.
        bias: Whether to add a bias to the output.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        device: Device of the parameters.
        dtype: Type of the parameters.
        coords: ``"xy"``, ``"xyr"`` or fewer of these letters, such as ``"y"``; `Coordinates` for other choices.

    Attributes:
        weight: ``(out_channels, in_channels / groups, kH, kW)``, as in `torch.nn.Conv2d`.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(out_channels, coordinates, kH, kW)``: the weight of the coordinate channels.

    Raises:
        ValueError: If ``coords`` is none of these, or `torch.nn.Conv2d` rejects an argument.

    Shape:
        Input ``(B, in_channels, H, W)`` or ``(in_channels, H, W)``; output as in `torch.nn.Conv2d`.

    Example:
        >>> layer = CoordConv2d(3, 16, kernel_size=3, padding=1, coords="xyr")
        >>> layer(torch.rand(8, 3, 32, 32)).shape
        torch.Size([8, 16, 32, 32])
        >>> layer.load_state_dict(nn.Conv2d(3, 16, 3, padding=1).state_dict())
        <All keys matched successfully>
    """

    ndim = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "xy",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(*shape, groups, bias, padding_mode, device, dtype, coords=coords)


class CoordConv3d(CoordConv, nn.Conv3d):
    """`torch.nn.Conv3d` that also sees positions: `CoordConv2d` for three axes.

    Args:
        coords: Letters of ``"xyzr"``, or `Coordinates`; all other arguments are those of `torch.nn.Conv3d`.

    Example:
        >>> CoordConv3d(3, 4, kernel_size=3, padding=1)(torch.rand(2, 3, 7, 8, 9)).shape
        torch.Size([2, 4, 7, 8, 9])
    """

    ndim = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: str | int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "xyz",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, dilation)
        super().__init__(*shape, groups, bias, padding_mode, device, dtype, coords=coords)


class CoordConvTranspose1d(CoordConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` that also sees positions: `CoordConvTranspose2d` for one axis.

    Args:
        coords: ``"x"`` or ``"xr"``, or `Coordinates`; all other arguments are those of `torch.nn.ConvTranspose1d`.

    Example:
        >>> CoordConvTranspose1d(3, 4, kernel_size=2, stride=2)(torch.rand(2, 3, 9)).shape
        torch.Size([2, 4, 18])
    """

    ndim = 1
    _transposed = staticmethod(F.conv_transpose1d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] = 0,
        output_padding: int | tuple[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int] = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "x",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, output_padding)
        super().__init__(*shape, groups, bias, dilation, padding_mode, device, dtype, coords=coords)


class CoordConvTranspose2d(CoordConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` that also sees the position of each pixel (Liu et al., 2018, section 3).

    Equal, to rounding, to a transposed convolution of the input with its coordinate channels concatenated to it.

    Args:
        coords: Letters of ``"xyr"``, or `Coordinates`; all other arguments are those of `torch.nn.ConvTranspose2d`.

    Attributes:
        weight: ``(in_channels, out_channels / groups, kH, kW)``, as in `torch.nn.ConvTranspose2d`.
        bias: ``(out_channels,)`` or None.
        coord_weight: ``(coordinates, out_channels, kH, kW)``: the weight of the coordinate channels.

    Raises:
        ValueError: If ``coords`` is none of these, or `torch.nn.ConvTranspose2d` rejects an argument.

    Example:
        >>> layer = CoordConvTranspose2d(8, 3, kernel_size=4, stride=2, padding=1)
        >>> layer(torch.rand(2, 8, 16, 16)).shape
        torch.Size([2, 3, 32, 32])
    """

    ndim = 2
    _transposed = staticmethod(F.conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "xy",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, output_padding)
        super().__init__(*shape, groups, bias, dilation, padding_mode, device, dtype, coords=coords)


class CoordConvTranspose3d(CoordConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` that also sees positions: `CoordConvTranspose2d` for three axes.

    Args:
        coords: Letters of ``"xyzr"``, or `Coordinates`; all other arguments are those of `torch.nn.ConvTranspose3d`.

    Example:
        >>> CoordConvTranspose3d(3, 4, kernel_size=2, stride=2)(torch.rand(2, 3, 7, 8, 9)).shape
        torch.Size([2, 4, 14, 16, 18])
    """

    ndim = 3
    _transposed = staticmethod(F.conv_transpose3d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        output_padding: int | tuple[int, int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int, int] = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        coords: CoordsLike = "xyz",
    ) -> None:
        shape = (in_channels, out_channels, kernel_size, stride, padding, output_padding)
        super().__init__(*shape, groups, bias, dilation, padding_mode, device, dtype, coords=coords)


COORD_CLASSES: dict[type[nn.Module], type[CoordLayer]] = {
    nn.Conv1d: CoordConv1d,
    nn.Conv2d: CoordConv2d,
    nn.Conv3d: CoordConv3d,
    nn.ConvTranspose1d: CoordConvTranspose1d,
    nn.ConvTranspose2d: CoordConvTranspose2d,
    nn.ConvTranspose3d: CoordConvTranspose3d,
}
"""The CoordConv layer that takes the place of each of torch's convolutions."""

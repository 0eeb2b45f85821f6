"""`AddCoords`: concatenate coordinate channels to features, as the paper draws the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coords import CoordsLike, as_coordinates, layer_coords
from coordconv_apps.nn.functional import CHANNELS_LAST, is_channels_last
from coordconv_apps.nn.fx_leaf import Proxy, leaf_call
from coordconv_apps.nn.grid import Window
from coordconv_apps.nn.window_layer import SeesWindows, check_window_count


def concatenate_coords(input: Tensor, coords: CoordsLike, ndim: int, window: Window | None = None) -> Tensor:
    """Concatenate coordinate channels to ``(B, C, *size)`` or ``(C, *size)`` with ``ndim`` spatial axes.

    Example:
        >>> concatenate_coords(torch.zeros(8, 16, 32, 32), "xyr", ndim=2).shape
        torch.Size([8, 19, 32, 32])
    """
    if input.dim() not in (ndim + 1, ndim + 2):
        raise ValueError(
            f"input has {input.dim()} axes; coords={coords!r} needs (C, *size) or (B, C, *size) "
            f"with {ndim} spatial axes"
        )
    size = tuple(input.shape[-ndim:])
    grid = as_coordinates(coords).sample(size, window=window, dtype=input.dtype, device=input.device)
    check_window_count(grid, input, ndim)
    grid = grid.expand(input.shape[0], *grid.shape[1:]) if input.dim() == ndim + 2 else grid[0]
    if input.dim() == ndim + 2 and is_channels_last(input):  # torch.cat keeps a memory format that all inputs have
        grid = grid.contiguous(memory_format=CHANNELS_LAST[input.dim()])
    return torch.cat([input, grid], dim=-ndim - 1)


class AddCoords(SeesWindows, nn.Module):
    """Concatenate coordinate channels to the input, as the paper draws it (Liu et al., 2018, figure 3).

    For networks that need the coordinates themselves; a convolution right after it is cheaper as a CoordConv layer.

    Args:
        coords: Letters of ``"xyzr"`` in this order, such as ``"xy"``, or `Coordinates`.
        ndim: Number of spatial axes, for coordinates that do not name the last of them; by default the smallest
            number that has the channels.

    Shape:
        Input ``(B, C, *size)`` or ``(C, *size)``; output with as many more channels as there are coordinates, which
        come last, in the input's memory format.

    Raises:
        ValueError: If ``coords`` is none of these, ``ndim`` is not 1, 2 or 3, or the input has another number of axes.

    Example:
        >>> AddCoords("x")(torch.zeros(1, 5))
        tensor([[ 0.0000,  0.0000,  0.0000,  0.0000,  0.0000],
                [-1.0000, -0.5000,  0.0000,  0.5000,  1.0000]])
    """

    def __init__(self, coords: CoordsLike = "xy", ndim: int | None = None) -> None:
        super().__init__()
        self.ndim = as_coordinates(coords).least_ndim if ndim is None else ndim
        if self.ndim not in (1, 2, 3):
            raise ValueError(f"ndim={ndim!r} must be 1, 2 or 3")
        self.coords = layer_coords(coords, self.ndim)

    def forward(self, input: Tensor) -> Tensor:
        """Append the coordinate channels."""
        if isinstance(input, Proxy):
            return leaf_call(self, input)
        self.next_window()
        return concatenate_coords(input, self.coords, self.ndim, self.window)

    def extra_repr(self) -> str:
        """Return the coordinates."""
        return f"coords={self.coords!r}"

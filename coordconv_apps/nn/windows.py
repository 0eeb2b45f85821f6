"""Coordinates of a window: a tile or crop sees the coordinates that it has in the whole image.

A window is given in pixels of the model's input. A layer behind strides sees a smaller grid, so `measure_strides` runs
the model at several sizes, without computing anything, to see how each layer's grid follows the input. Position j of a
tile's grid is position j + origin / stride of the whole image's grid, and the layer computes that position's coordinate
from the size of the whole image's grid. This holds for any padding, because position j is computed from the same input
pixels in both cases, apart from padded borders; it is exact where the origin is a multiple of the stride.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from coordconv_apps.nn.grid import Window
from coordconv_apps.nn.strides import measure_strides
from coordconv_apps.nn.window_layer import AxisSampling, coordinate_modules

Place = Sequence[int] | Tensor
"""One number per spatial axis, outermost first, or a tensor ``(axes,)`` or ``(B, axes)`` of them."""


@contextmanager
def coord_window(model: nn.Module, origin: Place, full_size: Place) -> Iterator[None]:
    """Let a model's input be a window of a larger image: the layers compute the coordinates that it has there.

    Call `measure_strides` once before. The window holds for all threads that run the model. Nested contexts replace
    the outer window until they end.

    Args:
        model: A model with CoordConv layers or `AddCoords`.
        origin: The input's first pixel within the whole image, one integer per spatial axis, outermost first: the row,
            then the column. Coordinates continue beyond the range where a window begins before the image or ends
            behind it. A tensor ``(axes,)`` or ``(B, axes)`` gives one place for the batch or one per sample.
        full_size: Size of the whole image, likewise.

    Integers let evaluation cache a window's maps. Compiled and exported models need tensors: with integers they would
    be compiled again for every window. With activation checkpointing, call ``backward`` within the context: it computes
    the layers again.

    Raises:
        ValueError: If an argument is none of these, the window begins behind the image, no layer has coordinates, or
            strides were not measured.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> model = CoordConv2d(3, 8, 1).eval()
        >>> _ = measure_strides(model, (1, 3, 16, 16))
        >>> image = torch.rand(1, 3, 64, 64)
        >>> with coord_window(model, origin=(16, 32), full_size=(64, 64)):
        ...     tile = model(image[:, :, 16:32, 32:48])
        >>> torch.allclose(tile, model(image)[:, :, 16:32, 32:48], atol=1e-6)
        True
    """
    layers = coordinate_modules(model)
    unmeasured = [name or "the model itself" for name, layer in layers.items() if layer.sampling is None]
    if unmeasured:
        raise ValueError(
            f"the strides of {', '.join(unmeasured)} are not known; call measure_strides(model, input_size=...) once,"
            " with forward=... if the model alone does not reach them"
        )
    ndim = next(iter(layers.values())).ndim
    origin, full_size = _check_place("origin", origin, ndim), _check_place("full_size", full_size, ndim)
    if isinstance(origin, Tensor) or isinstance(full_size, Tensor):
        # The kind of tensor of a compiled program is constant, so this costs nothing there.
        like = origin if isinstance(origin, Tensor) else full_size
        assert isinstance(like, Tensor)
        origin, full_size = (torch.as_tensor(place, device=like.device) for place in (origin, full_size))
    elif wrong := [(o, n) for o, n in zip(origin, full_size, strict=True) if n < 1 or o >= n]:
        raise ValueError(
            f"origin={tuple(origin)}, full_size={tuple(full_size)}: the window begins behind the image"
            f" ({wrong[0][0]} of {wrong[0][1]} pixels)"
        )
    before = [(layer, layer.windows) for layer in layers.values()]
    try:
        for layer in layers.values():
            layer.set_windows(tuple(_place(call, origin, full_size) for call in layer.sampling or ()))
        yield
    finally:
        for layer, windows in before:
            layer.set_windows(windows)


def _check_place(name: str, place: Place, ndim: int) -> Place:
    """Return a place as a tuple of integers or a tensor; raise a ValueError if it is neither."""
    if isinstance(place, Tensor):
        if place.dim() in (1, 2) and place.shape[-1] == ndim and not place.is_complex() and place.dtype != torch.bool:
            return place
        given = f"a tensor of shape {tuple(place.shape)} and type {place.dtype}"
    else:
        try:
            values = tuple(n if isinstance(n, torch.SymInt) else int(n) for n in place)
        except (TypeError, ValueError):
            values = ()
        if len(values) == ndim and all(a == b for a, b in zip(values, place, strict=True)):
            return values
        given = repr(place)
    raise ValueError(
        f"{name}={given}: must be {ndim} integers, one per spatial axis, or a tensor of shape ({ndim},) or (B, {ndim})"
    )


def _place(sampling: tuple[AxisSampling, ...], origin: Place, full_size: Place) -> Window:
    """Return a window of the input in positions of a layer's grid."""
    if isinstance(origin, Tensor) and isinstance(full_size, Tensor):
        pairs = [axis.place(origin[..., i], full_size[..., i]) for i, axis in enumerate(sampling)]
        first, size = (torch.stack(values, dim=-1) for values in zip(*pairs, strict=True))
        return Window(first, size)
    pairs = [axis.place(o, n) for axis, o, n in zip(sampling, origin, full_size, strict=True)]
    return Window(tuple(first for first, _ in pairs), tuple(size for _, size in pairs))


class WindowedModel(nn.Module):
    """Give a model two more inputs, the window's origin and the size of the whole image; for calls and for export.

    Args:
        model: A model with CoordConv layers or `AddCoords`, whose input is one tensor. Its strides are measured at the
            first call if `measure_strides` was not called before.

    Shape:
        Input ``(B, C, *size)``, and two places as in `coord_window`; output as the model's.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> windowed = WindowedModel(CoordConv2d(3, 8, 3, padding=1))
        >>> tiles, origins = torch.rand(2, 3, 16, 16), torch.tensor([[0, 0], [16, 48]])
        >>> windowed(tiles, origins, (64, 64)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor, origin: Place, full_size: Place) -> object:
        """Run the model on a window of a larger image."""
        if any(layer.sampling is None for layer in coordinate_modules(self.model).values()):
            measure_strides(self.model, tuple(input.shape))
        with coord_window(self.model, origin, full_size):
            return self.model(input)

"""Checkpoints of layers that concatenate coordinates: load them into CoordConv layers, and write them.

Public implementations of CoordConv concatenate coordinate channels to the features and hold one convolution over both.
They differ in the order of the channels, their range, and where the radius is measured from; `ConcatenatedLayout`
says how. Its ``coordinates`` are those that a CoordConv layer needs to compute exactly the same.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.coords import as_coordinates
from coordconv_apps.nn.grid import AXES, Coordinates


@dataclasses.dataclass(frozen=True)
class RadiusFrom:
    """A function for `Coordinates`: the axes, then ``factor`` times the distance from ``centre`` on every axis.

    Example:
        >>> Coordinates("x", function=RadiusFrom(0.5)).grid((3,))
        tensor([[-1.0000,  0.0000,  1.0000],
                [ 1.5000,  0.5000,  0.5000]])
    """

    centre: float
    factor: float = 1.0

    def __call__(self, grid: Tensor) -> Tensor:
        """Return the channels of ``grid``, of shape ``(C, ...)``, and the radius."""
        radius = self.factor * (grid - self.centre).square().sum(0, keepdim=True).sqrt()
        return torch.cat([grid, radius])


@dataclasses.dataclass(frozen=True)
class ConcatenatedLayout:
    """How a concatenating layer orders and scales its coordinate channels.

    Args:
        channels: Letters of ``"xyzr"`` in the order of the channels, named by the axis along which they change: x
            along the last axis, a row of pixels. Many ports call the first channel x although it changes from row to
            row: their order is ``"yx"``.
        coords_first: Whether the coordinates come before the features.
        range: Smallest and largest coordinate of an axis.
        align_corners: As in `Coordinates`.
        radius_centre: Coordinate on every axis from which r is measured; None for the centre of the range. A common
            port measures r from 0.5 although its range is [-1, 1].
        radius_factor: Factor of r, above 0.
        conv: Name of the convolution within the port's layer, so that its weight is called ``<layer>.<conv>.weight``;
            empty if the layer is the convolution itself.

    Raises:
        ValueError: If a field is none of these, or r is moved or scaled and an axis before it is missing.

    Example:
        >>> ConcatenatedLayout("yxr", radius_centre=0.5).coordinates
        Coordinates(channels='xy', range=(-1.0, 1.0), align_corners=True, function=RadiusFrom(centre=0.5, factor=1.0))
    """

    channels: str = "xy"
    coords_first: bool = False
    range: tuple[float, float] = (-1.0, 1.0)
    align_corners: bool = True
    radius_centre: float | None = None
    radius_factor: float = 1.0
    conv: str = "conv"

    def __post_init__(self) -> None:
        letters = self.channels if isinstance(self.channels, str) else ""
        if not letters or len(set(letters)) < len(letters) or set(letters) - set(AXES + "r"):
            raise ValueError(f"channels={self.channels!r} must be letters of {AXES + 'r'!r}, each once")
        if not isinstance(self.coords_first, bool):
            raise ValueError(f"coords_first={self.coords_first!r} must be True or False")
        if not (self.radius_centre is None or _is_finite(self.radius_centre)):
            raise ValueError(f"radius_centre={self.radius_centre!r} must be a finite number, or None")
        if not (_is_finite(self.radius_factor) and self.radius_factor > 0):
            raise ValueError(f"radius_factor={self.radius_factor!r} must be a positive number")
        plain = Coordinates(_in_our_order(letters), self.range, self.align_corners)
        object.__setattr__(self, "range", plain.range)
        if self._moved_radius and set(letters) - {"r"} != set(AXES[: plain.least_ndim]):
            raise ValueError(f"channels={self.channels!r}: radius_centre and radius_factor need all axes before them")

    @property
    def _moved_radius(self) -> bool:
        centre = sum(self.range) / 2
        return "r" in self.channels and (self.radius_factor != 1 or self.radius_centre not in (None, centre))

    @property
    def coordinates(self) -> Coordinates:
        """The coordinates of a CoordConv layer that computes the same as a layer of this layout."""
        channels = _in_our_order(self.channels)
        if not self._moved_radius:
            return Coordinates(channels, self.range, self.align_corners)
        centre = sum(self.range) / 2 if self.radius_centre is None else self.radius_centre
        function = RadiusFrom(float(centre), float(self.radius_factor))
        return Coordinates(channels.removesuffix("r"), self.range, self.align_corners, function)


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _in_our_order(channels: str) -> str:
    return "".join(sorted(channels, key=(AXES + "r").index))


def import_concatenated(
    model: nn.Module, state_dict: Mapping[str, Tensor], layout: ConcatenatedLayout, *, exact: bool = True
) -> dict[str, Tensor]:
    """Return the checkpoint of a model with concatenating layers as one of ``model``, which has CoordConv layers there.

    Build ``model`` with ``coords=layout.coordinates``: its outputs then equal those of the port, to rounding. Other
    coordinates are converted where that is exact: another range changes the bias, which zero padding forbids,
    because padding is 0 in either range, and so do transposed layers, whose outputs do not all see the whole kernel.

    Args:
        model: The model that is to load the result with ``load_state_dict``.
        state_dict: State dict of the other model. Its other layers must have the names that they have in ``model``.
        layout: How the other model's layers order and scale coordinates.
        exact: False converts ranges in spite of zero padding, and in transposed layers: outputs then differ near
            borders, and behind strides of a transposed layer everywhere.

    Raises:
        ValueError: If there is no CoordConv layer, one has several groups, its weight is missing or has another shape,
            or the conversion is not exact.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> layout = ConcatenatedLayout("yx", range=(0, 1))
        >>> model = nn.Sequential(CoordConv2d(3, 8, 3, padding=1, coords=layout.coordinates))
        >>> theirs = {"0.conv.weight": torch.rand(8, 5, 3, 3), "0.conv.bias": torch.rand(8)}
        >>> model.load_state_dict(import_concatenated(model, theirs, layout))
        <All keys matched successfully>
    """
    result = dict(state_dict)
    for name, layer in _layers(model):
        own, key = _key(name, ""), _key(name, layout.conv)
        if key + "weight" not in result:
            raise ValueError(f"{key}weight is not in the state dict; layout.conv={layout.conv!r} names the convolution")
        whole, bias = result.pop(key + "weight"), result.pop(key + "bias", None)
        axis, count = 0 if layer.transposed else 1, len(layout.channels)
        shape = list(layer.weight.shape)
        shape[axis] += count
        if list(whole.shape) != shape:
            raise ValueError(f"{key}weight has the shape {tuple(whole.shape)}; layer {name!r} needs {tuple(shape)}")
        parts = [count, layer.weight.shape[axis]] if layout.coords_first else [layer.weight.shape[axis], count]
        features, coords = whole.split(parts, axis)[:: -1 if layout.coords_first else 1]
        order = [layout.channels.index(channel) for channel in _in_our_order(layout.channels)]
        coords = coords.index_select(axis, torch.tensor(order, device=coords.device))
        coords, shift = _convert(name, layer, coords, layout.coordinates, as_coordinates(layer.coords), exact)
        result |= {own + "weight": features.contiguous(), own + "coord_weight": coords}
        if bias is not None:  # without a bias in the layer, load_state_dict refuses this key
            result[own + "bias"] = bias + shift
    return result


def export_concatenated(model: nn.Module, layout: ConcatenatedLayout, *, exact: bool = True) -> dict[str, Tensor]:
    """Return the state dict of ``model`` as a model with concatenating layers of ``layout`` has it.

    The reverse of `import_concatenated`, with the same arguments and errors.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> model = nn.Sequential(CoordConv2d(3, 8, 3), nn.ReLU())
        >>> {name: tuple(value.shape) for name, value in export_concatenated(model, ConcatenatedLayout("yx")).items()}
        {'0.conv.weight': (8, 5, 3, 3), '0.conv.bias': (8,)}
    """
    result: dict[str, Tensor] = {key: value.detach() for key, value in model.state_dict().items()}
    for name, layer in _layers(model):
        own, key = _key(name, ""), _key(name, layout.conv)
        features, coords = result.pop(own + "weight"), result.pop(own + "coord_weight")
        bias = result.pop(own + "bias", None)
        coords, shift = _convert(name, layer, coords, as_coordinates(layer.coords), layout.coordinates, exact)
        axis = 0 if layer.transposed else 1
        order = [_in_our_order(layout.channels).index(channel) for channel in layout.channels]
        coords = coords.index_select(axis, torch.tensor(order, device=coords.device))
        result[key + "weight"] = torch.cat([coords, features] if layout.coords_first else [features, coords], axis)
        if bias is not None:
            result[key + "bias"] = bias + shift
    return result


def _convert(
    name: str, layer: CoordLayer, weight: Tensor, old: Coordinates, new: Coordinates, exact: bool
) -> tuple[Tensor, Tensor]:
    """Return a layer's coordinate weight for the new coordinates in place of the old ones, and what its bias gains.

    Raises:
        ValueError: If that is not exact.
    """
    where = f"layer {name!r}" if name else "the model itself"
    if (old.channels, old.function, old.align_corners) != (new.channels, new.function, new.align_corners) or (
        old.function is not None and old.range != new.range
    ):
        raise ValueError(f"{where}: coordinates {old} cannot be written as {new}; build the model with coords={old}")
    if isinstance(old.function, RadiusFrom) and old.least_ndim < layer.ndim:
        raise ValueError(f"{where}: radius_centre and radius_factor need channels of all {layer.ndim} axes")
    if old.range == new.range:
        return weight, weight.new_zeros(())
    # The old coordinates are factor * new + offset, apart from r, which has no offset.
    widths, centres = ([high - low for low, high in (old.range, new.range)], [sum(c.range) / 2 for c in (old, new)])
    factor = widths[0] / widths[1]
    offset = centres[0] - factor * centres[1]
    offsets = [0.0 if channel == "r" else offset for channel in old.channels]
    if any(offsets):
        _check_shift(where, layer, old, exact)
    axis = 0 if layer.transposed else 1
    others = [i for i in range(weight.dim()) if i != 1 - axis]
    shift = (weight.movedim(axis, -1) * weight.new_tensor(offsets)).movedim(-1, axis).sum(others)
    if layer.transposed:  # on average, each output sees one kernel position in stride^ndim
        shift = shift / math.prod(layer.stride)
    return weight * factor, shift


def _check_shift(where: str, layer: CoordLayer, old: Coordinates, exact: bool) -> None:
    """Raise a ValueError if a constant that is added to coordinates is not the same as a change of the bias."""
    build = f"build the model with coords={old}"
    if layer.bias is None:
        raise ValueError(f"{where}: another range needs a bias, which the layer does not have; {build}")
    zero_padded = layer.padding_mode == "zeros" and layer.padding not in ("valid", 0, (0,) * layer.ndim)
    if exact and (layer.transposed or zero_padded):
        why = "a transposed convolution" if layer.transposed else "zero padding"
        raise ValueError(f"{where}: another range is not exact with {why}; {build}, or pass exact=False")


def _layers(model: nn.Module) -> list[tuple[str, CoordLayer]]:
    """Return the CoordConv layers by name; a shared one has several names, as in the state dict."""
    modules = model.named_modules(remove_duplicate=False)
    layers = [(name, module) for name, module in modules if isinstance(module, CoordLayer)]
    if not layers:
        raise ValueError("the model has no CoordConv layer")
    for name, layer in layers:
        if layer.groups > 1:
            raise ValueError(
                f"layer {name!r} has groups={layer.groups}: in a concatenating layer, only some groups would see the"
                " coordinates"
            )
    return layers


def _key(name: str, conv: str) -> str:
    return "".join(part + "." for part in (name, conv) if part)

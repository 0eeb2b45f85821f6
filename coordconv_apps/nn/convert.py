"""Convert whole models: `to_coordconv` gives their convolutions coordinates."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.coords import CoordsLike, as_coordinates, coords_for
from coordconv_apps.nn.grid import Coordinates
from coordconv_apps.nn.layers import COORD_CLASSES
from coordconv_apps.nn.module_classes import behaves_like, own_members
from coordconv_apps.nn.torch_internals import ConvNd

logger = logging.getLogger(__name__)

Where = str | Callable[[str, nn.Module], bool]

_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
"""Wrappers of torch, by name, so that converting a model does not load torch's distributed code."""


def coordconv_layers(model: nn.Module) -> dict[str, CoordLayer]:
    """Return the CoordConv layers of a model by name (``""`` for the model itself), in the order of the model.

    Example:
        >>> model = to_coordconv(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), where="all")
        >>> list(coordconv_layers(model))
        ['0', '2']
    """
    return {name: module for name, module in model.named_modules() if isinstance(module, CoordLayer)}


def to_coordconv(
    model: nn.Module,
    where: Where = "first",
    coords: CoordsLike = "xy",
    init: Literal["zero", "default"] = "zero",
    *,
    on_unsupported: Literal["error", "skip"] = "error",
) -> nn.Module:
    """Turn convolutions of a model into CoordConv layers, in place.

    The layer objects stay: they become CoordConv layers and get one more parameter, ``coord_weight``. So weights,
    hooks, devices, dtypes, train mode, sharing of a module between several places, and optimizers that hold the old
    parameters all stay as they are. Subclasses that have a constructor of their own only become the CoordConv layers of
    torch's class. The new parameters require gradients, also in layers whose weights are frozen;
    give them to your optimizer. The converted layers are logged, and `coordconv_layers` lists them.

    Args:
        model: Any module, a single convolution included.
        where: ``"first"`` (the first convolution that the model holds), ``"all"``, a regular expression that is
            searched for in layer names (as in ``model.named_modules()``), or a function of name and layer that
            returns whether to convert the layer.
        coords: ``"xy"``, or ``"xyr"`` to add the distance from the centre. Layers over one axis get ``x``, over
            three ``xyz``. Other letters of ``"xyzr"``, such as ``"y"``, are given to every layer as they are;
            `Coordinates` names other choices. ``"none"`` leaves the model as it is.
        init: ``"zero"`` starts the coordinate weights at 0: the model's outputs do not change until training changes
            them. ``"default"`` draws them as `CoordConv2d` does; the other weights stay.
        on_unsupported: ``"error"``, or ``"skip"`` to leave selected layers that cannot be converted as they are. Each
            is logged as a warning with the reason.

    Returns:
        ``model`` itself.

    Raises:
        ValueError: If ``where`` matches nothing, or only layers that have coordinates already; if ``where``,
            ``coords``, ``init`` or ``on_unsupported`` is none of the above; or if a layer does not have the axes of
            ``coords``.
        TypeError: If the model is not a module, or is wrapped for several processes (DDP, FSDP); or if a layer that
            matches cannot be converted: subclasses with methods or attributes of their own, layers that are
            parametrised, pruned, lazy or quantised, or whose forward was replaced; with ``on_unsupported="skip"``, if
            none can. Nothing is changed then.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
        >>> images = torch.rand(2, 3, 16, 16)
        >>> before = model(images)
        >>> _ = to_coordconv(model, where="all", coords="xyr")
        >>> torch.allclose(model(images), before, atol=1e-5)
        True
        >>> model[0]
        CoordConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), coords='xyr')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: {type(model).__name__} is not a torch.nn.Module")
    if on_unsupported not in ("error", "skip"):
        raise ValueError(f"on_unsupported={on_unsupported!r} is not one of 'error', 'skip'")
    if init not in ("zero", "default"):
        raise ValueError(f"init={init!r} is not one of 'zero', 'default'")
    if coords == "none":
        return model
    as_coordinates(coords)  # reject a bad value even if there is nothing to convert
    classes = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if wrapped := sorted(classes & _WRAPPERS):
        raise TypeError(f"the model is wrapped in {wrapped[0]}, which would not see the new parameters; convert first")
    chosen = choose_layers(model, where)
    refused = {name: reason for name, layer in chosen.items() if (reason := _why_not(layer))}
    if refused and (on_unsupported == "error" or len(refused) == len(chosen)):
        listed = "; ".join(f"{name or 'the model itself'}: {reason}" for name, reason in refused.items())
        raise TypeError(
            f"to_coordconv cannot convert {len(refused)} of the layers that where={where!r} selects: {listed}"
        )
    for name, reason in refused.items():
        logger.warning("%s is not converted: %s", name or "the model", reason)
    # Coordinates that do not fit a layer raise an error before any layer changes.
    translated = {name: coords_for(coords, _ndim(layer)) for name, layer in chosen.items() if name not in refused}
    for name, layer_coords in translated.items():
        _convert(chosen[name], layer_coords, init)
        logger.info("%s is now %s", name or "the model", chosen[name])
    return model


def choose_layers(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """Return the layers that `to_coordconv` would convert with the same ``where``, by name.

    Raises:
        ValueError: If ``where`` selects no layer, or only ones that have coordinates, or is none of the allowed values.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> choose_layers(model, "first")
        {'0': Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))}
    """
    names: dict[nn.Module, list[str]] = {}  # a shared module has several
    for name, module in model.named_modules(remove_duplicate=False):
        if _is_convolution(module):
            names.setdefault(module, []).append(name)
    if where == "first":
        chosen = list(names)[:1]
    else:
        matches = _matcher(where)
        chosen = [layer for layer in names if any(matches(name, layer) for name in names[layer])]
    plain = {names[layer][0]: layer for layer in chosen if not isinstance(layer, CoordLayer)}
    if plain:
        return plain
    listed = ", ".join(names[layer][0] or "the model itself" for layer in chosen or names)
    if chosen:
        raise ValueError(f"where={where!r} selects only layers that have coordinates already: {listed}")
    if not names:
        raise ValueError(
            f"where={where!r}: the model has no convolution of torch.nn; convert before torch.jit or torch.export"
        )
    raise ValueError(f"where={where!r} selects no plain convolution of the model; its convolutions: {listed}")


def _matcher(where: Where) -> Callable[[str, nn.Module], bool]:
    """Return ``where`` as a function of name and layer."""
    if callable(where):
        return where
    if where == "all":
        return lambda name, layer: True
    try:
        pattern = re.compile(where)
    except (re.error, TypeError) as error:
        raise ValueError(f"where={where!r} is not 'first', 'all' or a regular expression: {error}") from None
    return lambda name, layer: pattern.search(name) is not None


def _is_convolution(module: nn.Module) -> bool:
    """Return whether a module is one of torch's convolutions, derives from one or is named like one."""
    return isinstance(module, ConvNd) or bool(
        re.fullmatch(r"(Lazy)?Conv(Transpose)?[123]d", type(module).__name__) and hasattr(module, "kernel_size")
    )


def _why_not(layer: nn.Module) -> str | None:
    """Return why a convolution cannot be converted, or None if it can."""
    kind = type(layer)
    if torch.nn.utils.parametrize.is_parametrized(layer):
        return f"{kind.__name__} is parametrised; convert first, then parametrise"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return f"{kind.__name__} does not know its channels yet; run the model once first"
    base = next((cls for cls in kind.__mro__ if cls in COORD_CLASSES), None)
    if base is None:
        return f"{kind.__module__}.{kind.__qualname__} is not one of torch's own floating-point convolutions"
    if own := own_members(kind, base):
        return f"{kind.__module__}.{kind.__qualname__} is a subclass of {base.__name__} with its own {', '.join(own)}"
    if "forward" in vars(layer):
        return f"{kind.__name__} whose forward was replaced on the instance"
    if not isinstance(layer.weight, nn.Parameter):
        return f"{kind.__name__} whose weight is computed; convert first, then prune or normalise"
    return None


def _convert(layer: nn.Module, coords: str | Coordinates, init: Literal["zero", "default"]) -> None:
    base = behaves_like(type(layer), COORD_CLASSES)
    assert base is not None
    layer.__class__ = COORD_CLASSES[base]
    assert isinstance(layer, CoordLayer)
    layer.create_coord_weight(coords)
    if init == "zero":
        nn.init.zeros_(layer.coord_weight)
    else:
        layer.init_parameter(layer.coord_weight)


def _ndim(layer: nn.Module) -> int:
    assert isinstance(layer, ConvNd)
    return len(layer.kernel_size)

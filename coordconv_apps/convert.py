"""Conversion of whole models: `to_coordconv` puts coordinates in, `fold` turns them into constants for deployment."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coordconv_apps.coordmap import CoordLayer
from coordconv_apps.coords import coords_for
from coordconv_apps.layers import (
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose1d,
    CoordConvTranspose2d,
    CoordConvTranspose3d,
)

logger = logging.getLogger(__name__)

Where = str | Callable[[str, nn.Module], bool]

_COORD_CLASS: dict[type[nn.Module], type[CoordLayer]] = {
    nn.Conv1d: CoordConv1d,
    nn.Conv2d: CoordConv2d,
    nn.Conv3d: CoordConv3d,
    nn.ConvTranspose1d: CoordConvTranspose1d,
    nn.ConvTranspose2d: CoordConvTranspose2d,
    nn.ConvTranspose3d: CoordConvTranspose3d,
}
_PLAIN_CLASS = {coord: plain for plain, coord in _COORD_CLASS.items()}


def coordconv_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The CoordConv layers of a model by name, in the order in which the model holds them.

    Args:
        model: Any module.

    Returns:
        Name of each layer within ``model`` (``""`` for the model itself) and the layer.
    """
    return {name: module for name, module in model.named_modules() if isinstance(module, CoordLayer)}


_WRAPPERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
"""Of torch. By name, so that nothing of its distributed code is loaded for this."""


def to_coordconv(
    model: nn.Module, where: Where = "first", coords: str = "xy", init: Literal["zero", "default"] = "zero"
) -> nn.Module:
    """Turn convolutions of a model into CoordConv layers, in place.

    The layer objects stay: they become CoordConv layers and get one more parameter, ``coord_weight``. So weights,
    hooks, devices, dtypes, train mode, sharing of a module between several places, and optimizers that hold the old
    parameters all go on as they are. The new parameters want gradients, also in layers whose weights are frozen;
    give them to your optimizer. What was replaced is logged, and `coordconv_layers` lists it.

    Args:
        model: Any module tree; a lone convolution too.
        where: ``"first"`` (the first convolution that the model holds), ``"all"``, a regular expression that is
            searched for in layer names (as in ``model.named_modules()``), or a function of name and layer that
            says yes or no.
        coords: ``"xy"``, or ``"xyr"`` to add the distance from the centre. Layers over one axis get ``x``, over
            three ``xyz``.
        init: ``"zero"`` starts the coordinate weights at 0: the model's outputs do not change until training moves
            them. ``"default"`` draws them as `CoordConv2d` does; the other weights stay.

    Returns:
        ``model`` itself.

    Raises:
        ValueError: If nothing matches ``where``, or ``where``, ``coords`` or ``init`` is none of the above.
        TypeError: If a layer that matches cannot be converted: subclasses with a forward of their own,
            parametrised, lazy or quantised layers. Nothing is changed then.
    """
    if init not in ("zero", "default"):
        raise ValueError(f"init={init!r} is not one of 'zero', 'default'")
    coords_for(coords, 2)  # a bad value is refused even if nothing is to be converted
    classes = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if wrapped := sorted(classes & _WRAPPERS):
        raise TypeError(f"the model is wrapped in {wrapped[0]}, which would not see the new parameters; convert first")
    chosen = choose_layers(model, where)
    refused = {name: reason for name, layer in chosen.items() if (reason := _why_not(layer))}
    if refused:
        listed = "; ".join(f"{name or 'the model itself'}: {reason}" for name, reason in refused.items())
        raise TypeError(
            f"to_coordconv cannot convert {len(refused)} of the layers that where={where!r} selects: {listed}"
        )
    for name, layer in chosen.items():
        _convert(layer, coords, init)
        logger.info("%s is now %s", name or "the model", layer)
    return model


def choose_layers(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """The layers that `to_coordconv` would convert, by name.

    Args:
        model: The model.
        where: As of `to_coordconv`.

    Raises:
        ValueError: It selects none, or is none of what is allowed.
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
    if not plain:
        listed = ", ".join(name or "the model itself" for name, *_ in names.values()) or "none"
        raise ValueError(f"where={where!r} selects no plain convolution of the model; its convolutions: {listed}")
    return plain


def _matcher(where: Where) -> Callable[[str, nn.Module], bool]:
    """The yes-or-no function that ``where`` stands for."""
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
    """Whether a user would call it a convolution: torch's layers and whatever is built on or named after them."""
    return isinstance(module, _ConvNd) or bool(
        re.fullmatch(r"(Lazy)?Conv(Transpose)?[123]d", type(module).__name__) and hasattr(module, "kernel_size")
    )


def _why_not(layer: nn.Module) -> str | None:
    """Why a convolution cannot be converted, or None if it can."""
    kind = type(layer)
    if kind in _COORD_CLASS:
        if {"forward", "_conv_forward"} & vars(layer).keys():
            return f"{kind.__name__} whose forward was replaced on the instance"
        if not isinstance(layer.weight, nn.Parameter):
            return f"{kind.__name__} whose weight is computed (pruning or weight normalisation)"
        return None
    if torch.nn.utils.parametrize.is_parametrized(layer):
        return f"{kind.__name__} is parametrised; convert first, then parametrise"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return f"{kind.__name__} does not know its channels yet; run the model once first"
    return f"{kind.__module__}.{kind.__qualname__} is not one of torch's own floating-point convolutions"


def _convert(layer: nn.Module, coords: str, init: Literal["zero", "default"]) -> None:
    coord_class = _COORD_CLASS[type(layer)]
    layer.__class__ = coord_class
    assert isinstance(layer, CoordLayer)
    layer._add_coords(coords_for(coords, coord_class.ndim))
    with torch.no_grad():
        if init == "zero":
            layer.coord_weight.zero_()
        else:
            layer.draw(layer.coord_weight)


class _Sizes(NamedTuple):
    """Spatial sizes of a layer's input and output; as text such as ``32x32_to_16x16``."""

    input: tuple[int, ...]
    output: tuple[int, ...]

    @classmethod
    def of(cls, input: Tensor, output: Tensor, ndim: int) -> _Sizes:
        return cls(tuple(input.shape[-ndim:]), tuple(output.shape[-ndim:]))

    def __str__(self) -> str:
        return "_to_".join("x".join(str(s) for s in size) for size in self)


class FoldedConv(nn.Module):
    """A plain convolution and a constant map added to its output: what `fold` puts in a CoordConv layer's place.

    Args:
        conv: The convolution, without bias: the map holds it.
        maps: For each spatial size of the input that can come, and of the output that the layer makes of it (a
            transposed layer can make several), the map of shape ``(C, *output size)``.
    """

    def __init__(self, conv: nn.Module, maps: dict[_Sizes, Tensor]) -> None:
        super().__init__()
        self.conv = conv
        self._ndim = len(next(iter(maps)).input)
        for sizes, value in maps.items():
            self.register_buffer(f"map_{sizes}", value)

    def forward(
        self,
        input: Tensor,
        *args: Any,  # noqa: ANN401 - a transposed layer's output size
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> Tensor:
        """Convolve ``input`` of shape ``(B, C, *size)`` or ``(C, *size)`` and add the map.

        Raises:
            ValueError: If the model was not folded for this spatial size.
        """
        y: Tensor = self.conv(input, *args, **kwargs)
        sizes = _Sizes.of(input, y, self._ndim)
        constant = self._buffers.get(f"map_{sizes}")
        if constant is None:
            known = ", ".join(name.removeprefix("map_") for name in self._buffers)
            raise ValueError(f"spatial size {sizes} (input_to_output) is not one the model was folded for: {known}")
        return y + constant.to(y.dtype)  # of half precision under autocast


def fold(
    model: nn.Module, input_size: Sequence[int], forward: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """Copy a model with its CoordConv layers turned into plain convolutions and constant maps, for deployment.

    At a fixed input size a layer's coordinates add a constant to its output. The copy computes these once, so that
    it needs nothing of this package's layers, and gives the same outputs.

    Args:
        model: Any module; it is copied, not changed.
        input_size: Shape of one input, batch included, such as ``(1, 3, 224, 224)``. Any batch size works afterwards.
        forward: For models that take something other than one float tensor: a function that runs the given model
            once, on every input size that will be met, such as ``lambda m: m([torch.rand(3, 64, 64)])``.
            ``input_size`` is not used then.

    Returns:
        A copy in evaluation mode. An input of another size raises a ValueError there.

    Raises:
        ValueError: If the model has no CoordConv layer, or the run does not reach one of them.
        TypeError: If a layer is a subclass of a CoordConv layer, or is pruned or parametrised.
    """
    layers = coordconv_layers(model)
    if not layers:
        raise ValueError("the model has no CoordConv layer to fold")
    refused = "; ".join(
        f"{name or 'the model itself'}: {why}" for name in layers if (why := _why_not_fold(layers[name]))
    )
    if refused:
        raise TypeError(f"fold cannot fold some of the model's layers: {refused}")
    folded = copy.deepcopy(model).eval()
    names = {layer: name for name, layer in coordconv_layers(folded).items()}
    maps: dict[nn.Module, dict[_Sizes, Tensor]] = {layer: {} for layer in names}

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        assert isinstance(layer, CoordLayer)
        input = args[0] if args else kwargs["input"]
        maps[layer][_Sizes.of(input, output, layer.ndim)] = layer.coord_map(input, output).clone()

    # Before the model's own hooks, which may change the output.
    handles = [layer.register_forward_hook(record, prepend=True, with_kwargs=True) for layer in names]
    # Code that torch.compile has made of a model before does not look for hooks.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        if forward is None:
            example = next(folded.parameters())
            folded(torch.zeros(tuple(input_size), dtype=example.dtype, device=example.device))
        else:
            forward(folded)
    for handle in handles:
        handle.remove()
    unreached = [name or "the model itself" for layer, name in names.items() if not maps[layer]]
    if unreached:
        run = f"input_size={tuple(input_size)}" if forward is None else "forward"
        raise ValueError(f"the run on {run} does not reach {', '.join(unreached)}")
    return _replace(folded, {layer: _fold(layer, maps[layer]) for layer in names})


def _why_not_fold(layer: nn.Module) -> str | None:
    """Why a CoordConv layer cannot be folded, or None if it can."""
    if type(layer) not in _PLAIN_CLASS:
        return f"{type(layer).__name__} is a subclass with a forward of its own, or parametrised"
    if not {"weight", "bias", "coord_weight"} <= layer._parameters.keys():
        return "its weights are computed (pruning or weight normalisation); make them permanent first"
    return None


def _fold(layer: nn.Module, maps: dict[_Sizes, Tensor]) -> FoldedConv:
    """What takes a layer's place, its hooks included: they may change what goes in and what comes out."""
    folded = FoldedConv(_plain(layer), maps).train(layer.training)
    for name, hooks in vars(layer).items():
        if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
            getattr(folded, name).update(hooks)
    return folded


def _plain(layer: nn.Module) -> nn.Module:
    """The convolution within a CoordConv layer, with the same weight and without bias."""
    assert isinstance(layer, CoordLayer)
    options: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "padding_mode": layer.padding_mode,
    }
    if layer.transposed:
        options["output_padding"] = layer.output_padding
    conv = _PLAIN_CLASS[type(layer)](
        layer.in_channels, layer.out_channels, layer.kernel_size, bias=False, device="meta", **options
    )
    conv.weight = layer.weight
    return conv.train(layer.training)


def _replace(model: nn.Module, replacements: dict[nn.Module, FoldedConv]) -> nn.Module:
    """Put new modules where the old ones are held, also where one is held in several places."""
    if model in replacements:
        return replacements[model]
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                parent._modules[name] = replacements[child]
    return model

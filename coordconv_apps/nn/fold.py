"""Fold the coordinates of a model into constants: plain convolutions for deployment."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coordconv_apps.nn.convert import coordconv_layers
from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.nn.layers import COORD_CLASSES
from coordconv_apps.nn.torch_internals import copy_forward_hooks

_PLAIN_CLASSES = {coord: plain for plain, coord in COORD_CLASSES.items()}


def _sizes(input: Tensor, output: Tensor, ndim: int) -> str:
    """Return the spatial sizes of a layer's input and output as text, such as ``32x32_to_16x16``."""
    return "_to_".join("x".join(str(s) for s in tensor.shape[-ndim:]) for tensor in (input, output))


class FoldedConv(nn.Module):
    """A plain convolution and a constant map added to its output; `fold` puts it in a CoordConv layer's place.

    Args:
        conv: The convolution, without bias: the map holds it.
        maps: The map of shape ``(C, *output size)`` by `_sizes`, for each that can occur; a transposed layer can make
            outputs of several sizes from one input size.
    """

    def __init__(self, conv: nn.Module, maps: dict[str, Tensor]) -> None:
        super().__init__()
        self.conv = conv
        for sizes, value in maps.items():
            self.register_buffer(f"map_{sizes}", value)
        self._ndim = value.dim() - 1

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the convolution's arguments
        """Convolve ``input`` of shape ``(B, C, *size)`` or ``(C, *size)`` and add the map for its spatial size."""
        y: Tensor = self.conv(input, *args, **kwargs)
        sizes = _sizes(input, y, self._ndim)
        constant: Tensor | None = getattr(self, f"map_{sizes}", None)
        if constant is None:
            known = ", ".join(name.removeprefix("map_") for name, _ in self.named_buffers(recurse=False))
            raise ValueError(f"spatial size {sizes} (input_to_output) is not one the model was folded for: {known}")
        return y + constant.to(y.dtype)  # autocast may have made y half-precision


def fold(
    model: nn.Module, input_size: Sequence[int], forward: Callable[[nn.Module], object] | None = None
) -> nn.Module:
    """Copy a model with its CoordConv layers turned into plain convolutions and constant maps, for deployment.

    At a fixed input size a layer's coordinates add a constant to its output. The copy computes these once, so that
    it needs nothing of this package's layers, and gives the same outputs.

    Args:
        model: Any module; it is copied, not changed.
        input_size: Shape of one input, batch included, such as ``(1, 3, 224, 224)``. Any batch size works afterwards.
        forward: For models whose input is not one float tensor: a function that runs the given model on every input
            size that will occur, such as ``lambda m: m([torch.rand(3, 64, 64)])``. ``input_size`` is not used then.

    Returns:
        A copy in evaluation mode. It raises a ValueError for an input of another size.

    Raises:
        ValueError: If the model has no CoordConv layer, or the run does not reach one of them.
        TypeError: If a layer is a subclass of a CoordConv layer, or is pruned or parametrised.

    Example:
        >>> from coordconv_apps import CoordConv2d
        >>> model = nn.Sequential(CoordConv2d(3, 8, 3), nn.ReLU()).eval()
        >>> folded = fold(model, input_size=(1, 3, 16, 16))
        >>> images = torch.rand(4, 3, 16, 16)
        >>> torch.allclose(folded(images), model(images), atol=1e-6)
        True
        >>> [name for name, _ in folded.named_parameters()]
        ['0.conv.weight']
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
    maps: dict[nn.Module, dict[str, Tensor]] = {layer: {} for layer in names}

    def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        assert isinstance(layer, CoordLayer)
        input = args[0] if args else kwargs["input"]
        maps[layer][_sizes(input, output, layer.ndim)] = layer.coord_map(input, output).clone()

    # Before the model's own hooks, which may change the output.
    handles = [layer.register_forward_hook(record, prepend=True, with_kwargs=True) for layer in names]
    # A model that torch.compile has compiled before does not call hooks.
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
    """Return why a CoordConv layer cannot be folded, or None if it can."""
    if type(layer) not in _PLAIN_CLASSES:
        return f"{type(layer).__name__} is a subclass with a forward of its own, or parametrised"
    values = (getattr(layer, name) for name in ("weight", "bias", "coord_weight"))
    if not all(value is None or isinstance(value, nn.Parameter) for value in values):
        return "its weights are computed (pruning or weight normalisation); make them permanent first"
    return None


def _fold(layer: nn.Module, maps: dict[str, Tensor]) -> FoldedConv:
    """Return the folded layer, with the layer's weight and its hooks, which may change its input and its output."""
    assert isinstance(layer, CoordLayer)
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    if layer.transposed:
        names.append("output_padding")
    conv = _PLAIN_CLASSES[type(layer)](bias=False, device="meta", **{name: getattr(layer, name) for name in names})
    conv.weight = layer.weight
    folded = FoldedConv(conv, maps).train(layer.training)
    copy_forward_hooks(layer, folded)
    return folded


def _replace(model: nn.Module, replacements: dict[nn.Module, FoldedConv]) -> nn.Module:
    """Return the model with new modules in place of old ones, also where one is held in several places."""
    if model in replacements:
        return replacements[model]
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in replacements:
            model.set_submodule(name, replacements[module])
    return model

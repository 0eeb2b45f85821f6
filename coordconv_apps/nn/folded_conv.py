"""`FoldedConv`: a plain convolution and a constant map, which `fold` puts in a CoordConv layer's place."""

from typing import Any, List, Optional  # noqa: UP035 - TorchScript does not know ``list[int] | None``

import torch
from torch import Tensor, nn

from coordconv_apps.nn.fx_leaf import Proxy, leaf_call
from coordconv_apps.nn.torch_internals import ConvNd, convolve_is_replaced, repeated_padding

_READ_ONLY = frozenset(
    {
        *("weight", "bias", "in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding"),
        *("dilation", "groups", "padding_mode", "transposed"),
    }
)

Sizes = tuple[tuple[int, ...], tuple[int, ...]]
"""The spatial sizes of a layer's input and output."""


def sizes_of(input: Tensor, output: Tensor, ndim: int) -> Sizes:
    """Return the spatial sizes of a layer's input and output."""
    # Sizes are tensors in torch.jit.trace and symbols in torch.compile; as integers they become constants there.
    first, second = (tuple(int(s) for s in tensor.shape[-ndim:]) for tensor in (input, output))
    return first, second


def _text(sizes: Sizes) -> str:
    """Return sizes as text, such as ``32x32_to_16x16``."""
    return "_to_".join("x".join(map(str, size)) for size in sizes)


def _settings(conv: nn.Module) -> tuple[Any, ...]:
    """Return what a folded layer's map depends on, apart from sizes and weights."""
    if not isinstance(conv, ConvNd):  # such as a LoRA layer around the convolution
        return ()
    names = (conv.stride, conv.padding, conv.dilation, conv.padding_mode)
    return (*names, repeated_padding(conv), convolve_is_replaced(conv))


class FoldedConv(nn.Module):
    """A plain convolution and a constant map added to its output; `fold` puts it in a CoordConv layer's place.

    The convolution's weight and settings can be read here, too, but not set. There is no ``bias``: the map holds it.
    Code that computes with ``weight`` and ``bias``, such as `torch.nn.utils.fuse_conv_bn_eval`, would lose the map.

    Args:
        conv: The convolution, without bias: the map holds it.
        maps: The map of shape ``(C, *output size)`` for each pair of an input and an output size that can occur; a
            transposed layer can make outputs of several sizes from one input size.
    """

    def __init__(self, conv: nn.Module, maps: dict[Sizes, Tensor]) -> None:
        super().__init__()
        self.conv = conv
        self._names = {sizes: f"map_{_text(sizes)}" for sizes in maps}
        for sizes, value in maps.items():
            self.register_buffer(self._names[sizes], value)
        self._ndim = value.dim() - 1
        self._settings = _settings(conv)

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the convolution's arguments
        """Convolve ``input`` of shape ``(B, C, *size)`` or ``(C, *size)`` and add the map for its spatial size."""
        if isinstance(input, Proxy):
            return leaf_call(self, input, *args, **kwargs)
        if _settings(self.conv) not in (self._settings, ()):
            raise ValueError("the settings of the convolution changed after folding; fold the original model again")
        y: Tensor = self.conv(input, *args, **kwargs)
        if y.is_quantized:
            raise TypeError("eager quantisation does not know the map of a folded layer; use torchao's PT2E")
        sizes = sizes_of(input, y, self._ndim)
        name = self._names.get(sizes)
        if name is None:
            known = ", ".join(_text(sizes) for sizes in self._names)
            raise ValueError(
                f"this layer's spatial size is {_text(sizes)} (input_to_output), and the model was folded for: {known};"
                " fold it again for this input size, or for several sizes with forward=..."
            )
        constant: Tensor = getattr(self, name)
        return y + constant.to(y.dtype)  # autocast may have made y half-precision

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - torch's
        if name == "bias":
            raise AttributeError("a folded layer has no bias: its constant map holds bias and coordinates")
        return getattr(self.conv, name) if name in _READ_ONLY else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - torch's
        if name in _READ_ONLY:
            raise AttributeError(f"{name} of a folded layer is read-only: change the model, then fold it")
        super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return this layer in a form that TorchScript compiles; `torch.jit.script` puts it in the layer's place."""
        maps = [_Map(sizes, getattr(self, name)) for sizes, name in self._names.items()]
        made = (_ScriptedTransposed if getattr(self.conv, "transposed", False) else _Scripted)(self.conv, maps)
        # torch.jit.script remembers replaced layers by their id, so they must stay alive.
        made.replaced = (self,)
        return made


# TorchScript reads the annotations from here on as types, so this module does not import them as texts.
class _Map(nn.Module):
    """A constant map, and the sizes of input and output that it is for."""

    value: Tensor

    def __init__(self, sizes: Sizes, value: Tensor) -> None:
        super().__init__()
        self.input_size, self.output_size = (list(size) for size in sizes)
        self.register_buffer("value", value)

    def forward(self, y: Tensor, input: Tensor) -> Tensor:
        """Add the map to ``y``, the convolution of ``input``; return an empty tensor if the sizes are others."""
        ndim = len(self.output_size)
        if list(input.size())[-ndim:] == self.input_size and list(y.size())[-ndim:] == self.output_size:
            return y + self.value.to(y.dtype)
        return torch.empty(0)


class _ScriptedBase(nn.Module):
    """A folded layer without what TorchScript does not know: any number of arguments, attributes by name."""

    def __init__(self, conv: nn.Module, maps: list[_Map]) -> None:
        super().__init__()
        self.conv = conv
        self.maps = nn.ModuleList(maps)
        self.replaced: tuple[nn.Module, ...] = ()

    def add_map(self, y: Tensor, input: Tensor) -> Tensor:
        """Add the map for the sizes of the two tensors; raise an error if there is none."""
        found = y.new_empty(0)
        for constant in self.maps:
            made = constant(y, input)
            if made.numel() > 0:
                found = made
        if found.numel() == 0 and y.numel() > 0:
            raise ValueError("the model was folded for other input sizes; fold it again for this size")
        return found if found.numel() > 0 else y


class _Scripted(_ScriptedBase):
    """As a folded convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input`` and add the map for its spatial size."""
        return self.add_map(self.conv(input), input)


class _ScriptedTransposed(_ScriptedBase):
    """As a folded transposed convolution."""

    def forward(self, input: Tensor, output_size: Optional[List[int]] = None) -> Tensor:  # noqa: UP006, UP045 - as TorchScript needs it
        """Apply the transposed convolution to ``input`` and add the map for its spatial sizes."""
        return self.add_map(self.conv(input, output_size), input)

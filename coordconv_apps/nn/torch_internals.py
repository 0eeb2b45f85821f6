"""Everything that the layers use of torch's private interface, where torch offers no public way.

Checked with torch 2.14.1. `tests/nn/test_torch_internals.py` fails where a later release changes one of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.conv import _ConvNd as ConvNd  # the common base of torch's six convolutions

__all__ = ["ConvNd"]


def functorch_active() -> bool:
    """Return whether `torch.func` is transforming the program. torch.func itself has no such function."""
    return torch._C._are_functorch_transforms_active()


def forward_mode_active() -> bool:
    """Return whether forward-mode derivatives are computed. Dual numbers are recognised by their level only."""
    return forward_ad._current_level >= 0


_CONV_FORWARDS = {1: nn.Conv1d._conv_forward, 2: nn.Conv2d._conv_forward, 3: nn.Conv3d._conv_forward}


def convolve(layer: ConvNd, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the layer's convolution of ``input`` with any weight and bias, padded as torch's own forward does.

    The public functions know zero padding only; and a layer's forward always adds the bias.
    """
    return layer._conv_forward(input, weight, bias)


def convolve_is_replaced(layer: ConvNd) -> bool:
    """Return whether a program replaced the convolution within a layer's forward, such as for seamless tiling.

    Such programs set ``_conv_forward`` on a layer or on its class; transposed layers do not use it.
    """
    if layer.transposed:
        return False
    own = _CONV_FORWARDS[len(layer.kernel_size)]
    return "_conv_forward" in vars(layer) or type(layer)._conv_forward is not own


def repeated_padding(layer: ConvNd) -> tuple[int, ...]:
    """Return the padding that torch's forward uses for other modes than zeros, as `torch.nn.functional.pad` takes it.

    It is set once, when the layer is built: later changes of ``layer.padding`` do not count.
    """
    return tuple(layer._reversed_padding_repeated_twice)


def resolve_output_padding(layer: ConvNd, input: Tensor, output_size: Sequence[int] | None) -> Sequence[int]:
    """Return the output padding of a transposed convolution that makes an output of the given size.

    torch checks ``output_size`` there; the public functions take the output padding only.
    """
    return layer._output_padding(  # type: ignore[no-any-return, operator]  # no stub knows it
        input, output_size, layer.stride, layer.padding, layer.kernel_size, len(layer.kernel_size), layer.dilation
    )


def move_forward_hooks(source: nn.Module, target: nn.Module) -> None:
    """Move the forward hooks of one module to another, flags included. Registered hooks cannot be listed."""
    for name, hooks in vars(source).items():
        if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
            getattr(target, name).update(hooks)
            hooks.clear()


def has_forward_hooks(module: nn.Module) -> bool:
    """Return whether hooks run before or after a module's forward. Registered hooks cannot be listed."""
    return any(vars(module).get(name) for name in ("_forward_hooks", "_forward_pre_hooks"))

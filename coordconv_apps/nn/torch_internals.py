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


def conv_without_bias(layer: ConvNd, input: Tensor) -> Tensor:
    """Return the convolution of ``input`` without bias, padded as torch's own forward does.

    The public functions know zero padding only; and a layer's forward always adds the bias.
    """
    return layer._conv_forward(input, layer.weight, None)


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


def replaces_forward(layer: nn.Module) -> bool:
    """Return whether a convolution's forward, or the part of it above, was replaced on the instance."""
    return bool({"forward", "_conv_forward"} & vars(layer).keys())


def copy_forward_hooks(source: nn.Module, target: nn.Module) -> None:
    """Register the forward hooks of one module on another, flags included. Registered hooks cannot be listed."""
    for name, hooks in vars(source).items():
        if name.startswith(("_forward_hooks", "_forward_pre_hooks")):
            getattr(target, name).update(hooks)

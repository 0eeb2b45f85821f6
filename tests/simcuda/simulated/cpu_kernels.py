"""CPU kernels that differ from those of CUDA: SyncBatchNorm, the softmax and convolutions in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
_library = torch.library.Library("aten", "IMPL")


def register() -> None:
    """Register the kernels of SyncBatchNorm's operators for the CPU."""
    for name, kernel in (
        ("batch_norm_stats", _stats),
        ("batch_norm_gather_stats_with_counts", _gather_stats),
        ("batch_norm_elemt", _normalise),
        ("batch_norm_backward_reduce", _backward_sums),
        ("batch_norm_backward_elemt", _backward),
    ):
        _library.impl(name, kernel, "CPU")


# ------------------------------------------------------------------------------------------------------ SyncBatchNorm


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(x.float(), _axes(x), correction=0)
    return mean, (var + eps).rsqrt()


def _gather_stats(
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    total = counts.sum()
    share = (counts / total).view(-1, 1)
    common = (mean * share).sum(0)
    var = ((invstd**-2 - eps + (mean - common) ** 2) * share).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(common, momentum)
        running_var.lerp_(var * total / (total - 1), momentum)
    return common, (var + eps).rsqrt()


def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    y = (x - _per_channel(mean, x)) * _per_channel(invstd, x)
    if weight is not None and bias is not None:
        y = y * _per_channel(weight, x) + _per_channel(bias, x)
    return y.to(x.dtype)


def _backward_sums(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    input_g: bool,
    weight_g: bool,
    bias_g: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dy, centred = grad.sum(_axes(x)), (grad * (x - _per_channel(mean, x))).sum(_axes(x))
    return dy, centred, centred * invstd, dy.clone()


def _backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    dy: Tensor,
    centred: Tensor,
    count: Tensor,
) -> Tensor:
    total = count.sum()
    correlated = (x - _per_channel(mean, x)) * _per_channel(invstd**2 * centred / total, x)
    inner = grad - _per_channel(dy / total, x) - correlated
    return inner * _per_channel(invstd if weight is None else invstd * weight, x)


# ------------------------------------------------------------------------------- softmax from half to single precision


def _softmax_in_single(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
        return func(x.float() if half_to_float else x, dim, False)

    return softmax


def _softmax_backward_in_single(func: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def backward(grad: Tensor, output: Tensor, dim: int, input_dtype: torch.dtype) -> Tensor:
        return func(grad, output, dim, grad.dtype).to(input_dtype)

    return backward


# --------------------------------------------------------------------------------------- convolutions in half precision

HALF = (torch.float16, torch.bfloat16)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:  # noqa: ANN401  # handed on
    """Convolve in single precision, in which CUDA accumulates.

    On the CPU, a gradient of a depthwise convolution in bfloat16 became NaN in poisoned memory.
    """
    dtype = x.dtype
    if dtype in HALF:
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    result: Tensor = aten.convolution(x, weight, bias, *rest)
    return result.to(dtype)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Any:  # noqa: ANN401  # handed on
    if x.dtype not in HALF:
        return aten.convolution_backward(grad, x, weight, *rest)
    gradients = aten.convolution_backward(grad.float(), x.float(), weight.float(), *rest)
    return tuple(None if each is None else each.to(x.dtype) for each in gradients)


SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten._softmax.default: _softmax_in_single(aten._softmax.default),
    aten._log_softmax.default: _softmax_in_single(aten._log_softmax.default),
    aten._softmax_backward_data.default: _softmax_backward_in_single(aten._softmax_backward_data.default),
    aten._log_softmax_backward_data.default: _softmax_backward_in_single(aten._log_softmax_backward_data.default),
}
"""Operators that the CPU has in another form than CUDA."""

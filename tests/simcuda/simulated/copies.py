"""Copies between tensors: by torch's own CUDA code where that needs no kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.simcuda.simulated.memory import device_copy, host_view, one_piece
from tests.simcuda.simulated.waits import wait

aten = torch.ops.aten


def copy_(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Do what ``to.copy_(source)`` does."""
    if to.is_cuda and source.is_cuda:
        host_view(to).copy_(host_view(source))
    elif one_piece(to, source):
        to.copy_(source, non_blocking=non_blocking)
        if not (non_blocking and (source if to.is_cuda else to).is_pinned()):
            wait("copy to the device" if to.is_cuda else "copy to the host")
    elif to.is_cuda and non_blocking:  # in one piece to a temporary tensor, which the device converts
        values = source.expand_as(to).contiguous()
        temporary = torch.empty(to.shape, dtype=source.dtype, device=to.device)
        host_view(to).copy_(host_view(copy_(temporary, values, non_blocking=True)))
    elif to.is_cuda:
        wait("copy to the device")
        host_view(to).copy_(source)
    else:
        wait("copy to the host")
        to.copy_(host_view(source))
    return to


def to_copy(
    tensor: Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """Do what ``tensor.to(...)`` does if it has to copy."""
    device = tensor.device if device is None else torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    options = {"dtype": dtype, "memory_format": memory_format}
    changes = (
        tensor.dtype != (dtype or tensor.dtype)
        or memory_format not in (None, torch.preserve_format)
        or not torch._prims_common.is_non_overlapping_and_dense_or_false(tensor)
    )
    if device.type == "cuda" and tensor.is_cuda:
        return device_copy(aten._to_copy(host_view(tensor), **options), device)
    if device.type == "cuda":
        like = aten._to_copy(tensor, device=torch.device("meta"), **options)
        result = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=device)
        return copy_(result, tensor, non_blocking)
    if changes:
        tensor = device_copy(aten._to_copy(host_view(tensor), **options), tensor.device)
    pinned = bool(pin_memory or non_blocking)
    result = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, pin_memory=pinned)
    return copy_(result, tensor, non_blocking)

"""Tensors over the memory of the device, which is memory of the host."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import torch
from torch import Tensor

POISON = "SIM_CUDA_POISON" in os.environ


def host_view(tensor: Tensor) -> Tensor:
    """Return a CPU tensor over the memory of a CUDA tensor."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    storage = tensor.untyped_storage()
    if not storage.nbytes():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory: Any = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    memory.keep = storage
    flat = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(flat, tensor.storage_offset(), tensor.shape, tensor.stride())


def device_copy(values: Tensor, device: torch.device) -> Tensor:
    """Return a CUDA tensor with the values of a CPU tensor."""
    if any(stride == 0 and size > 1 for size, stride in zip(values.shape, values.stride(), strict=True)):
        values = values.contiguous()
    result = torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=device)
    host_view(result).copy_(values)
    return result


def poison(tensor: Tensor) -> Tensor:
    """Fill uninitialised memory, which torch may have used before: NaN, -1, 255 or True. Return the tensor."""
    if tensor.is_cuda and tensor.numel() and tensor.untyped_storage().nbytes():
        memory = host_view(tensor)
        if tensor.dtype == torch.bool:
            memory.fill_(True)
        else:
            torch.empty(0, dtype=torch.uint8).set_(memory.untyped_storage()).fill_(0xFF)
    return tensor


def one_piece(a: Tensor, b: Tensor) -> bool:
    """Return whether one tensor can be copied to the other as one piece of memory."""
    dense: bool = torch._prims_common.is_non_overlapping_and_dense_or_false(a)
    return dense and a.shape == b.shape and a.stride() == b.stride() and a.dtype == b.dtype

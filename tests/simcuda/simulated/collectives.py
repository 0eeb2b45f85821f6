"""Gloo in place of NCCL, with NCCL's rules for the tensors."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor
from torch._ops import OpOverload
from torch.distributed import distributed_c10d as c10d

from tests.simcuda.simulated.rules import RefusedByCUDA

NCCL_TYPES = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
}


def check(func: OpOverload, tensors: list[Tensor]) -> None:
    """Raise what NCCL raises about the tensors of a collective: types, memory, two ranks on one GPU.

    Tensors on the CPU never get here: torch itself says that there is no backend for them.
    """
    rank = os.environ.get("LOCAL_RANK")
    for tensor in tensors:
        if not tensor.is_cuda:
            continue
        if tensor.dtype not in NCCL_TYPES:
            raise RefusedByCUDA(f"{func}: data type is not supported for NCCL process group: {tensor.dtype}")
        if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
            raise RefusedByCUDA(f"{func}: Tensors must be contiguous")
        if rank is not None and tensor.device.index != int(rank):
            raise RefusedByCUDA(
                f"{func}: rank {rank} uses {tensor.device}: Duplicate GPU detected. Call torch.cuda.set_device first"
            )


def stand_in_for_nccl() -> None:
    """Let gloo do the work of the backend "nccl", for CUDA tensors only, with what gloo lacks."""
    c10d.Backend._plugins["NCCL"] = c10d.Backend._BackendPlugin(c10d._create_gloo_process_group, True)
    gloo_all_reduce = c10d.all_reduce

    def all_reduce(
        tensor: Tensor,
        op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM,
        group: dist.ProcessGroup | None = None,
        async_op: bool = False,
    ) -> dist.Work | None:
        if op != dist.ReduceOp.AVG or tensor.is_floating_point():
            return gloo_all_reduce(tensor, op, group, async_op)
        gloo_all_reduce(tensor, dist.ReduceOp.SUM, group)
        tensor.div_(dist.get_world_size(group), rounding_mode="trunc")
        return None

    def all_gather_into_tensor(
        output: Tensor, tensor: Tensor, group: dist.ProcessGroup | None = None, async_op: bool = False
    ) -> None:
        parts = output.view(-1).chunk(dist.get_world_size(group))
        dist.all_gather([part.view_as(tensor) for part in parts], tensor, group)

    for module in (c10d, dist):
        for name, function in (
            ("all_reduce", all_reduce),
            ("all_gather_into_tensor", all_gather_into_tensor),
            ("all_gather_single", all_gather_into_tensor),
        ):
            setattr(module, name, function)

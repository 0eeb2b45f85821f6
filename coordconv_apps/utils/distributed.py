"""Helpers for several processes: which one this is, and values gathered from all ranks."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables in which launchers pass a process its rank, the first that is set counts; as in Lightning."""

T = TypeVar("T")


def is_main_process() -> bool:
    """Return whether this is the process that writes files and prints: rank 0, on the first machine."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    rank = next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), "0")
    return rank == "0" and os.environ.get("NODE_RANK", "0") == "0"


def is_first_here() -> bool:
    """Return whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def gather_ranks(value: T, group: torch.distributed.ProcessGroup | None = None) -> list[T]:
    """Return the ``value`` of every process, in the order of their ranks.

    All processes (of the group, if given) must call this together. Under NCCL the pickled values travel through the
    current CUDA device; Lightning's strategies select it before any hook runs. Outside of them, call
    `torch.cuda.set_device` first, or pass a gloo group.

    >>> gather_ranks("one process")
    ['one process']
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(values, value, group=group)
    return values

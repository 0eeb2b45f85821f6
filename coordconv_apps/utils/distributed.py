"""Helpers for several processes: which one this is, and values gathered from all ranks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    pass


def is_main_process() -> bool:
    """Whether this is the process that writes files and prints: the first one of the first machine."""
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


T = TypeVar("T")


def gather_ranks(value: T) -> list[T]:
    """``value`` of every process, in order of rank. With several processes all of them must call this together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values

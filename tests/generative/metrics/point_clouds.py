"""Seeded generators and random point clouds."""

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(number: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(number, columns, generator=generator(seed), dtype=torch.float64)

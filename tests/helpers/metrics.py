"""Metrics of several processes, put together as torchmetrics does before it computes them."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torchmetrics import Metric

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def reduced(*processes: AnyMetric) -> AnyMetric:
    """Return a metric with the state of all processes together; each state is a tensor."""
    together = copy.deepcopy(processes[0])
    for name, reduction in together._reductions.items():
        assert callable(reduction), name
        setattr(together, name, reduction(torch.stack([getattr(each, name) for each in processes])))
    return together

"""Metrics of several processes, put together as torchmetrics does before it computes them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric

AnyMetric = TypeVar("AnyMetric", bound=Metric)


def together(fresh: AnyMetric, *processes: AnyMetric) -> AnyMetric:
    """Give a fresh metric the states of all processes together, and return it.

    As torchmetrics gathers them: of a list the list of each process as one tensor, an empty one where there is none.
    """
    for name, reduction in fresh._reductions.items():
        states = [getattr(each, name) for each in processes]
        gathered: Tensor | list[Tensor]
        if isinstance(states[0], list):
            gathered = [torch.cat(state) if state else torch.tensor([]) for state in states]
            assert len({part.ndim for part in gathered}) == 1, name
        else:
            gathered = torch.stack(states)
        assert callable(reduction), name
        setattr(fresh, name, reduction(gathered))
    fresh._update_count = 1  # else a warning that nothing was added
    return fresh

"""Networks that have as many parameters as another one, for fair comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters of a network, frozen ones included.

    Example:
        >>> parameter_count(torch.nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def widest_within_budget(make: Callable[[int], nn.Module], budget: int) -> int:
    """Return the largest number of channels with which a network keeps to a number of parameters, and at least 1.

    Args:
        make: Function that builds the network for a number of channels; more channels must give more parameters.
        budget: Largest number of parameters.

    Example:
        >>> widest_within_budget(lambda channels: torch.nn.Linear(3, channels), budget=50)
        12
    """
    channels = 1
    with torch.device("meta"):
        while parameter_count(make(channels + 1)) <= budget:
            channels += 1
    return channels

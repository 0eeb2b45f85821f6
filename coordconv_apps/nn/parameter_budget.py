"""Build networks within the parameter count of another one, for fair comparisons."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters of a network, frozen ones included.

    Example:
        >>> parameter_count(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def widest_within_budget(make: Callable[[int], nn.Module], budget: int) -> int:
    """Return the largest number of channels with which a network has at most ``budget`` parameters, and at least 1.

    ``make`` builds the network for a number of channels; more channels must give more parameters.

    Example:
        >>> widest_within_budget(lambda channels: nn.Linear(3, channels), budget=50)
        12
    """
    channels = 1
    with torch.device("meta"):
        while parameter_count(make(channels + 1)) <= budget:
            channels += 1
    return channels

"""Networks of as many parameters as another one has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def parameter_count(network: nn.Module) -> int:
    """The number of parameters of a network, whether they are trained or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def widest_within_budget(make: Callable[[int], nn.Module], budget: int) -> int:
    """The largest number of channels with which a network has at most a number of parameters, and at least 1.

    Args:
        make: Makes the network of a number of channels; the more channels, the more parameters.
        budget: Parameters at most.
    """
    channels = 1
    with torch.device("meta"):
        while parameter_count(make(channels + 1)) <= budget:
            channels += 1
    return channels

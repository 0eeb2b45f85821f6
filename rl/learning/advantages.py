"""Rollouts and their advantages (GAE), as Stable-Baselines3 computes them.

Pure functions of arrays and tensors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rollout(NamedTuple):
    """What one process has played, in T steps of its N environments, and what all E environments have in common.

    Attributes:
        observations: uint8 ``(T, N, C, H, W)``.
        actions: int64 ``(T, N)``, or float32 ``(T, N, A)`` as the policy drew them, not clipped.
        log_probs: float32 ``(T, N)``, of the actions when they were drawn.
        advantages: float32 ``(T, E)``, of the environments of all processes.
        values: float32 ``(T, E)``, likewise, as predicted when the actions were drawn.
        first: The number of this process's first environment among the E.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    first: int


def advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    starts: NDArray[np.bool_],
    last_values: NDArray[np.float32],
    last_dones: NDArray[np.bool_],
    *,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Generalised advantage estimates (Schulman et al., 2016, equation 16), as of Stable-Baselines3's rollout buffer.

    Args:
        rewards: ``(T, N)``.
        values: ``(T, N)``, of the states in which the actions were taken.
        starts: ``(T, N)``, whether an episode begins with that state.
        last_values: ``(N,)``, of the state after the last step.
        last_dones: ``(N,)``, whether an episode ended with the last step.
        gamma: Discount of a step, in [0, 1].
        gae_lambda: Weight of later differences, in [0, 1]; with 1, returns minus values.

    Returns:
        float32 ``(T, N)``. Advantages plus values are the returns that the values learn.
    """
    result = np.empty_like(rewards)
    following, going_on = last_values, 1.0 - last_dones.astype(np.float32)
    estimate = np.zeros_like(last_values)
    for step in range(len(rewards) - 1, -1, -1):
        difference = rewards[step] + gamma * following * going_on - values[step]
        estimate = difference + gamma * gae_lambda * going_on * estimate
        result[step] = estimate
        following, going_on = values[step], 1.0 - starts[step].astype(np.float32)
    return result


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """The share of the returns' variance that the values explain; not a number if the returns are all equal.

    Args:
        values: What was predicted, of any shape.
        returns: What it should have been, of the same shape.
    """
    variance = returns.var(correction=0)
    return torch.where(variance == 0, math.nan, 1 - (returns - values).var(correction=0) / variance)

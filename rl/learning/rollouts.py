"""Rollouts and their advantages (GAE), computed as Stable-Baselines3 does: pure functions of arrays and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from rl.observations import Observations

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FinishedGames(NamedTuple):
    """The games that ended in some steps of a training.

    Attributes:
        scores: Unclipped score of each.
        lengths: Length of each, as the environment reports it: for Atari in emulator frames.
        successes: 1 or 0 for each game whose environment reports ``is_success``.
    """

    scores: list[float]
    lengths: list[int]
    successes: list[float]


class Rollout(NamedTuple):
    """T steps of the N environments of this rank, with the advantages and values of all E environments.

    Attributes:
        observations: uint8 ``(T, N, C, H, W)``, or for Dict observations a tensor ``(T, N, ...)`` by key.
        actions: int64 ``(T, N)``, or float32 ``(T, N, A)`` as the policy sampled them: flattened, before clipping.
        log_probs: float32 ``(T, N)``, of the actions when they were sampled.
        advantages: float32 ``(T, E)``, of the environments of all ranks.
        values: float32 ``(T, E)``, of all ranks, as predicted when the actions were sampled.
        first: Number of this rank's first environment among the E.
        games: The games of the N environments that ended in these steps.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    first: int
    games: FinishedGames


def compute_advantages(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    starts: NDArray[np.bool_],
    last_values: NDArray[np.float32],
    last_dones: NDArray[np.bool_],
    *,
    gamma: float,
    gae_lambda: float,
) -> NDArray[np.float32]:
    """Compute generalised advantage estimates (Schulman et al., 2016, equation 16), as SB3's rollout buffer does.

    Args:
        rewards: ``(T, N)``.
        values: ``(T, N)``, of the states in which the actions were taken.
        starts: ``(T, N)``, whether an episode starts with that state.
        last_values: ``(N,)``, of the state after the last step.
        last_dones: ``(N,)``, whether an episode ended with the last step.
        gamma: Discount factor, in [0, 1].
        gae_lambda: Weight of later temporal differences, in [0, 1]; with 1, advantages are returns minus values.

    Returns:
        float32 ``(T, N)``. Advantages plus values are the targets of the value function.

    >>> rewards, values = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    >>> starts, done = np.array([[True], [False]]), np.array([True])
    >>> compute_advantages(rewards, values, starts, values[0], done, gamma=0.5, gae_lambda=1.0).ravel()
    array([1.5, 1. ], dtype=float32)
    """
    result = np.empty_like(rewards)
    next_values, continues = last_values, 1.0 - last_dones.astype(np.float32)
    estimate = np.zeros_like(last_values)
    for step in range(len(rewards) - 1, -1, -1):
        difference = rewards[step] + gamma * next_values * continues - values[step]
        estimate = difference + gamma * gae_lambda * continues * estimate
        result[step] = estimate
        next_values, continues = values[step], 1.0 - starts[step].astype(np.float32)
    return result

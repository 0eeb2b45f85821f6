"""Cut rollouts into minibatches, as Stable-Baselines3 does, so that any number of ranks makes the same updates.

Sums over samples are divided by ``size``, which is chosen so that DistributedDataParallel's mean of the ranks'
gradients is the gradient of the mean over the samples of all ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from coordconv_apps.utils.seeds import mix_seeds
from rl.learning.rollouts import Rollout
from rl.observations import Observations, map_parts, select_observations

if TYPE_CHECKING:
    from collections.abc import Iterator

EPSILON = 1e-8
"""Added to the standard deviation that advantages are divided by, as in Stable-Baselines3."""


class Minibatch(NamedTuple):
    """B samples of a rollout: those of this rank.

    Attributes:
        observations: uint8 ``(B, C, H, W)``, or for Dict observations a tensor ``(B, ...)`` by key.
        actions: int64 ``(B,)``, or float32 ``(B, A)``.
        log_probs: float32 ``(B,)``, of the actions when they were sampled.
        advantages: float32 ``(B,)``, normalised on request.
        values: float32 ``(B,)``, as predicted when the actions were sampled.
        returns: float32 ``(B,)``, the targets of the values.
        size: Divisor of sums over these samples: B for a single rank.
    """

    observations: Observations
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    size: float


def full_batch(rollout: Rollout, *, normalize_advantage: bool, world_size: int = 1) -> Minibatch:
    """Return all samples of a rollout as one minibatch. The arguments are those of `minibatches`."""
    advantages = rollout.advantages
    if normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + EPSILON)
    own = slice(rollout.first, rollout.first + rollout.log_probs.shape[1])
    values = rollout.values[:, own].flatten()
    return Minibatch(
        map_parts(lambda part: part.flatten(0, 1), rollout.observations),
        rollout.actions.flatten(0, 1),
        rollout.log_probs.flatten(),
        advantages[:, own].flatten(),
        values,
        rollout.advantages[:, own].flatten() + values,
        advantages.numel() / world_size,
    )


def order_generator(seed: int, rollout: int) -> torch.Generator:
    """Return the generator of the order in which the samples of a rollout are visited: the same on all ranks."""
    return torch.Generator().manual_seed(mix_seeds(seed, rollout, 1))  # 0 is for `action_noise`


def minibatches(
    rollout: Rollout,
    batch_size: int,
    generator: torch.Generator,
    *,
    normalize_advantage: bool,
    world_size: int = 1,
) -> Iterator[Minibatch]:
    """Shuffle a rollout's samples and yield them in minibatches, each sample once.

    All ranks cut the same samples into the same minibatches. Each rank has the samples of its own environments, so that
    their number varies between minibatches and may be 0. Advantages are normalised over the minibatch of all ranks, so
    that the number of ranks makes no difference.

    Args:
        rollout: T steps of the E environments of all ranks.
        batch_size: Samples in a minibatch, over all ranks; it divides T * E.
        generator: Draws the order (`order_generator`).
        normalize_advantage: Whether to subtract the mean and divide by the standard deviation (with N - 1), unless a
            minibatch is a single sample.
        world_size: Number of ranks.
    """
    num_envs, own = rollout.advantages.shape[1], rollout.log_probs.shape[1]
    device = rollout.log_probs.device
    advantages, values = rollout.advantages.flatten(), rollout.values.flatten()
    observations = map_parts(lambda part: part.flatten(0, 1), rollout.observations)
    actions = rollout.actions.flatten(0, 1)
    log_probs = rollout.log_probs.flatten()
    order = torch.randperm(advantages.numel(), generator=generator)  # sample t * E + e is step t of environment e
    for samples in order.split(batch_size):
        envs = samples % num_envs - rollout.first
        is_own = (envs >= 0) & (envs < own)
        here, local = samples[is_own], (samples // num_envs * own + envs)[is_own]
        samples, here, local = (indices.to(device, non_blocking=True) for indices in (samples, here, local))
        advantage = advantages[here]
        if normalize_advantage and batch_size > 1:
            of_all_ranks = advantages[samples]
            advantage = (advantage - of_all_ranks.mean()) / (of_all_ranks.std() + EPSILON)
        yield Minibatch(
            select_observations(observations, local),
            actions[local],
            log_probs[local],
            advantage,
            values[here],
            advantages[here] + values[here],
            batch_size / world_size,
        )

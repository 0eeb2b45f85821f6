"""What a policy learns from a rollout: advantages, losses and batches, as Stable-Baselines3 has them.

Everything here is a pure function of arrays and tensors. The figures of several processes add up to those of one: sums
over samples are divided by ``size``, which the caller chooses such that the mean of the processes' gradients, which
DistributedDataParallel takes, is the gradient of the mean over the samples of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

EPSILON = 1e-8
"""What is added to the standard deviation that advantages are divided by; Stable-Baselines3's."""

MEASURES = ("policy_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")
"""What `Measures` holds, by name."""


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


class Batch(NamedTuple):
    """B of a rollout's samples, those of one process.

    Attributes:
        observations: uint8 ``(B, C, H, W)``.
        actions: int64 ``(B,)``, or float32 ``(B, A)``.
        log_probs: float32 ``(B,)``, of the actions when they were drawn.
        advantages: float32 ``(B,)``, normalised if asked for.
        values: float32 ``(B,)``, as predicted when the actions were drawn.
        returns: float32 ``(B,)``, what the values should have been.
        size: What sums over these samples are divided by: B for one process.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    size: float


class Measures(NamedTuple):
    """A loss and what is worth knowing about it, scalars; without gradients but for ``loss``.

    Attributes:
        policy_loss: Of the policy gradient.
        value_loss: Mean squared error of the values.
        entropy_loss: Minus the mean entropy of the policy, in nats.
        loss: What is to be made small: the weighted sum of these.
        approx_kl: How far the policy has come from the one that played: an estimate of the divergence, in nats.
        clip_fraction: Share of the samples that are clipped, in [0, 1].
    """

    policy_loss: Tensor
    value_loss: Tensor
    entropy_loss: Tensor
    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


class Predictions(NamedTuple):
    """What a policy says of a batch.

    Attributes:
        values: ``(B,)``.
        log_probs: ``(B,)``, of the batch's actions.
        entropy: ``(B,)``, in nats; None where there is no formula for it.
    """

    values: Tensor
    log_probs: Tensor
    entropy: Tensor | None


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


def a2c_loss(predicted: Predictions, batch: Batch, *, ent_coef: float, vf_coef: float) -> Measures:
    """The loss of advantage actor-critic (Mnih et al., 2016, section 4 and supplement), as Stable-Baselines3 has it.

    Minus log-probabilities times advantages, plus ``vf_coef`` times the squared error of the values, minus ``ent_coef``
    times the entropy: means over the samples.

    Args:
        predicted: By the policy that is to learn.
        batch: A rollout's samples.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the values' error.
    """
    policy_loss = -(batch.advantages * predicted.log_probs).sum() / batch.size
    nothing = torch.zeros_like(policy_loss)
    return _measures(predicted, batch, policy_loss, predicted.values, ent_coef, vf_coef, nothing, nothing)


def ppo_loss(
    predicted: Predictions,
    batch: Batch,
    *,
    clip_range: float,
    clip_range_vf: float | None = None,
    ent_coef: float,
    vf_coef: float,
) -> Measures:
    """The clipped loss of proximal policy optimisation (Schulman et al., 2017, equations 7 and 9), as of SB3.

    Args:
        predicted: By the policy that is to learn.
        batch: A rollout's samples.
        clip_range: How far the ratio of probabilities counts from 1.
        clip_range_vf: How far values count from those that were predicted when playing; None: without bounds. This is
            OpenAI's addition, and not in the paper.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the values' error: half of the mean squared one is the paper's with c1 = 2 vf_coef.
    """
    log_ratio = predicted.log_probs - batch.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -torch.minimum(batch.advantages * ratio, batch.advantages * clipped).sum() / batch.size
    with torch.no_grad():
        # The estimator k3 of Schulman's note "Approximating KL divergence" (2020).
        approx_kl = (ratio - 1 - log_ratio).sum() / batch.size
        clip_fraction = ((ratio - 1).abs() > clip_range).sum() / batch.size
    values = predicted.values
    if clip_range_vf is not None:
        values = batch.values + (values - batch.values).clamp(-clip_range_vf, clip_range_vf)
    return _measures(predicted, batch, policy_loss, values, ent_coef, vf_coef, approx_kl, clip_fraction)


def _measures(
    predicted: Predictions,
    batch: Batch,
    policy_loss: Tensor,
    values: Tensor,
    ent_coef: float,
    vf_coef: float,
    approx_kl: Tensor,
    clip_fraction: Tensor,
) -> Measures:
    """The whole loss of that of the policy: what both algorithms have in common."""
    value_loss = functional.mse_loss(values, batch.returns, reduction="sum") / batch.size
    # Minus the log-probability of what was drawn is an estimate of the entropy.
    entropy = -predicted.log_probs if predicted.entropy is None else predicted.entropy
    entropy_loss = -entropy.sum() / batch.size
    loss = policy_loss + ent_coef * entropy_loss + vf_coef * value_loss
    return Measures(policy_loss.detach(), value_loss.detach(), entropy_loss.detach(), loss, approx_kl, clip_fraction)


def whole(rollout: Rollout, *, normalize_advantage: bool, world_size: int = 1) -> Batch:
    """All samples of a rollout as one batch: `batches` has the details.

    Args:
        rollout: With T steps of the E environments of all processes.
        normalize_advantage: Whether to subtract the mean and to divide by the standard deviation (with N - 1).
        world_size: Number of processes.
    """
    everyone = rollout.advantages
    if normalize_advantage:
        everyone = (everyone - everyone.mean()) / (everyone.std() + EPSILON)
    own = slice(rollout.first, rollout.first + rollout.log_probs.shape[1])
    values = rollout.values[:, own].flatten()
    return Batch(
        rollout.observations.flatten(0, 1),
        rollout.actions.flatten(0, 1),
        rollout.log_probs.flatten(),
        everyone[:, own].flatten(),
        values,
        rollout.advantages[:, own].flatten() + values,
        everyone.numel() / world_size,
    )


def batches(
    rollout: Rollout, order: Tensor, batch_size: int, *, normalize_advantage: bool, world_size: int = 1
) -> Iterator[Batch]:
    """A rollout's samples in batches, each of them once.

    All processes deal the same samples into the same batches: each has those of its own environments, of a batch more
    and of another fewer or none. Advantages are normalised by mean and standard deviation over the whole batch. So the
    number of processes makes no difference, and to one process this is what Stable-Baselines3 does.

    Args:
        rollout: With T steps of the E environments of all processes.
        order: int64 ``(T * E,)`` on the CPU, a permutation: sample ``t * E + e`` is step t of environment e.
        batch_size: Samples of all processes in a batch; it divides T * E.
        normalize_advantage: Whether to subtract the mean and to divide by the standard deviation (with N - 1), unless
            a batch is a single sample.
        world_size: Number of processes.
    """
    environments, own = rollout.advantages.shape[1], rollout.log_probs.shape[1]
    device = rollout.log_probs.device
    everyone, values = rollout.advantages.flatten(), rollout.values.flatten()
    # In the order in which they lie in memory, so that they are copied in one piece each.
    pixels, actions = rollout.observations.flatten(0, 1).permute(0, 2, 3, 1), rollout.actions.flatten(0, 1)
    log_probs = rollout.log_probs.flatten()
    for samples in order.split(batch_size):
        numbers = samples % environments - rollout.first
        mine = (numbers >= 0) & (numbers < own)
        here, local = samples[mine], (samples // environments * own + numbers)[mine]
        samples, here, local = (indices.to(device, non_blocking=True) for indices in (samples, here, local))
        advantage = everyone[here]
        if normalize_advantage and batch_size > 1:
            chosen = everyone[samples]
            advantage = (advantage - chosen.mean()) / (chosen.std() + EPSILON)
        returns = everyone[here] + values[here]
        size = batch_size / world_size
        observations = pixels.index_select(0, local).permute(0, 3, 1, 2)
        yield Batch(observations, actions[local], log_probs[local], advantage, values[here], returns, size)

"""Losses of A2C and PPO, as Stable-Baselines3 computes them: pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rl.learning.minibatches import Batch

if TYPE_CHECKING:
    pass


MEASURES = ("policy_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")
"""What `Measures` holds, by name."""


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

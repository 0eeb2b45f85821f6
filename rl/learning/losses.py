"""Losses of A2C and PPO, as Stable-Baselines3 computes them: pure functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rl.learning.minibatches import Minibatch


class Predictions(NamedTuple):
    """Predictions of a policy for a minibatch.

    Attributes:
        values: ``(B,)``.
        log_probs: ``(B,)``, of the minibatch's actions.
        entropy: ``(B,)``, in nats; None for distributions whose entropy has no closed form.
    """

    values: Tensor
    log_probs: Tensor
    entropy: Tensor | None


def a2c_loss(predictions: Predictions, minibatch: Minibatch, *, ent_coef: float, vf_coef: float) -> dict[str, Tensor]:
    """Compute the loss of advantage actor-critic (Mnih et al., 2016, section 4 and supplement), as SB3 does.

    Args:
        predictions: Predictions of the policy that is trained.
        minibatch: Samples of a rollout.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the values' mean squared error.

    Returns:
        Scalars: ``loss``, to be minimised, and without gradients its terms ``policy_loss``, ``value_loss`` (mean
        squared error) and ``entropy_loss`` (minus the mean entropy, in nats).
    """
    policy_loss = -(minibatch.advantages * predictions.log_probs).sum() / minibatch.size
    return _total(policy_loss, predictions.values, predictions, minibatch, ent_coef, vf_coef)


def ppo_loss(
    predictions: Predictions,
    minibatch: Minibatch,
    *,
    clip_range: float,
    clip_range_vf: float | None = None,
    ent_coef: float,
    vf_coef: float,
) -> dict[str, Tensor]:
    """Compute the clipped loss of proximal policy optimization (Schulman et al., 2017, equations 7 and 9), as SB3 does.

    Args:
        predictions: Predictions of the policy that is trained.
        minibatch: Samples of a rollout.
        clip_range: Largest distance of the probability ratio from 1 that counts.
        clip_range_vf: Largest change of the values that counts; None for no limit. OpenAI's addition, not in the paper.
        ent_coef: Weight of the entropy.
        vf_coef: Weight of the values' mean squared error, the paper's c1.

    Returns:
        Scalars: those of `a2c_loss`, and without gradients ``approx_kl``, an estimate of the KL divergence from the
        policy that collected the rollout, in nats, and ``clip_fraction``, the fraction of clipped samples, in [0, 1].
    """
    log_ratio = predictions.log_probs - minibatch.log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -torch.minimum(minibatch.advantages * ratio, minibatch.advantages * clipped).sum() / minibatch.size
    with torch.no_grad():
        # The estimator k3 of Schulman's note "Approximating KL divergence" (2020).
        approx_kl = (ratio - 1 - log_ratio).sum() / minibatch.size
        clip_fraction = ((ratio - 1).abs() > clip_range).sum() / minibatch.size
    values = predictions.values
    if clip_range_vf is not None:
        values = minibatch.values + (values - minibatch.values).clamp(-clip_range_vf, clip_range_vf)
    losses = _total(policy_loss, values, predictions, minibatch, ent_coef, vf_coef)
    return {**losses, "approx_kl": approx_kl, "clip_fraction": clip_fraction}


def _total(
    policy_loss: Tensor,
    values: Tensor,
    predictions: Predictions,
    minibatch: Minibatch,
    ent_coef: float,
    vf_coef: float,
) -> dict[str, Tensor]:
    """Add the value loss and the entropy loss to the policy loss."""
    value_loss = functional.mse_loss(values, minibatch.returns, reduction="sum") / minibatch.size
    # Minus the log-probability of the sampled action is an estimate of the entropy.
    entropy = -predictions.log_probs if predictions.entropy is None else predictions.entropy
    entropy_loss = -entropy.sum() / minibatch.size
    terms = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy_loss": entropy_loss}
    loss = policy_loss + ent_coef * entropy_loss + vf_coef * value_loss
    return {**{name: term.detach() for name, term in terms.items()}, "loss": loss}

"""What a policy does in a state, and what it thinks of what was done: choices out of several actions without detours.

For those, Stable-Baselines3's policies make an object of `torch.distributions`, which checks its arguments, for each
step. That costs more than the arithmetic, takes random numbers from the global generator and refuses empty batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor

from coordconv_apps.utils.seeds import mix_seeds
from rl.learning.losses import Predictions

NOISE, ORDER = 0, 1
"""What random numbers are for: `generator` gives each use its own."""


def generator(seed: int, rollout: int, use: int) -> torch.Generator:
    """Random numbers that depend on the seed, the number of the rollout and what they are for, and on nothing else.

    So every process has the same ones, and a run that is resumed has those of one that was not interrupted.
    """
    return torch.Generator().manual_seed(mix_seeds(seed, rollout, use))


def action_noise(seed: int, rollout: int, steps: int, environments: int, actions: int) -> Tensor:
    """Gumbel noise for `act`: a discrete action that is drawn is the largest of log-probability plus noise.

    Args:
        seed: Of the training.
        rollout: The number of the rollout.
        steps: T.
        environments: E, of all processes: each then takes its own part.
        actions: How many actions there are to choose from.

    Returns:
        float32 ``(T, E, actions)``.
    """
    shape = (steps, environments, actions)
    return -torch.empty(shape).exponential_(generator=generator(seed, rollout, NOISE)).log_()


class Acted(NamedTuple):
    """What a policy does in N environments.

    Attributes:
        actions: int64 ``(N,)``, or float32 ``(N, A)``.
        values: float32 ``(N,)``.
        log_probs: float32 ``(N,)``, of the actions.
    """

    actions: Tensor
    values: Tensor
    log_probs: Tensor


def act(policy: ActorCriticPolicy, observations: Tensor, noise: Tensor | None) -> Acted:
    """Draws actions, like the policy's ``forward``.

    Args:
        policy: The policy.
        observations: uint8 ``(N, C, H, W)`` on the policy's device.
        noise: For a choice of actions, `action_noise` of this step, ``(N, actions)``. None: torch's global generator.
    """
    if noise is None:
        actions, values, log_probs = policy(observations)
        return Acted(actions, values.flatten().float(), log_probs.float())
    values, log_probs = _choices(policy, observations)
    drawn = (log_probs + noise).argmax(1, keepdim=True)
    return Acted(drawn[:, 0], values, log_probs.gather(1, drawn)[:, 0])


def assess(policy: ActorCriticPolicy, observations: Tensor, actions: Tensor) -> Predictions:
    """What a policy thinks of states and of actions in them, like its ``evaluate_actions``.

    Args:
        policy: The policy.
        observations: uint8 ``(B, C, H, W)`` on the policy's device.
        actions: int64 ``(B,)``, or float32 ``(B, A)``.
    """
    if not isinstance(policy.action_dist, CategoricalDistribution):
        values, log_probs, entropy = policy.evaluate_actions(observations, actions)
        return Predictions(values.flatten().float(), log_probs.float(), None if entropy is None else entropy.float())
    values, log_probs = _choices(policy, observations)
    entropy = -(log_probs.exp() * log_probs).sum(1)
    return Predictions(values, log_probs.gather(1, actions[:, None])[:, 0], entropy)


def _choices(policy: ActorCriticPolicy, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(N,)``, and the log-probabilities ``(N, actions)`` of all actions."""
    images = observations.float()
    if policy.normalize_images:
        images.div_(255)
    if policy.share_features_extractor:
        latent_pi, latent_vf = policy.mlp_extractor(policy.features_extractor(images))
    else:
        latent_pi = policy.mlp_extractor.forward_actor(policy.pi_features_extractor(images))
        latent_vf = policy.mlp_extractor.forward_critic(policy.vf_features_extractor(images))
    values: Tensor = policy.value_net(latent_vf)
    logits: Tensor = policy.action_net(latent_pi)
    return values[:, 0].float(), logits.float().log_softmax(1)


def values_and_logits(policy: BasePolicy, observations: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401  # a tensor or a dict
    """Return the value of states and the logits of the actions in them.

    Args:
        policy: Policy of A2C, PPO or DQN, or one with the same networks.
        observations: Tensors ``(B, ...)`` as `BasePolicy.obs_to_tensor` returns them, of any type.

    Returns:
        Values ``(B,)``: the critic's, or the largest Q-value. Logits ``(B, A)``: the actor's outputs (means for
        continuous actions), or the Q-values minus their mean.

    Raises:
        ValueError: The policy is of another kind.
    """
    if isinstance(policy, ActorCriticPolicy):
        features: Any = policy.extract_features(observations)
        actor, critic = features if isinstance(features, tuple) else (features, features)
        values = policy.value_net(policy.mlp_extractor.forward_critic(critic)).squeeze(1)
        return values, policy.action_net(policy.mlp_extractor.forward_actor(actor))
    if isinstance(policy, DQNPolicy):
        q = policy.q_net(observations)
        return q.amax(1), q - q.mean(1, keepdim=True)
    raise ValueError(f"policy={type(policy).__name__}: must be an actor-critic policy, or one of DQN")

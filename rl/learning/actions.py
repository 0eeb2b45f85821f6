"""Sample the actions of a policy and evaluate given ones, without the detours of Stable-Baselines3's policies.

For discrete actions, SB3's policies create a `torch.distributions` object in each step, which checks its arguments.
That costs more than the arithmetic, draws from the global random generator and rejects empty batches.
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor

from coordconv_apps.utils.seeds import mix_seeds
from rl.learning.losses import Predictions
from rl.observations import Observations


def action_noise(seed: int, rollout: int, steps: int, num_envs: int, num_actions: int) -> Tensor:
    """Draw Gumbel noise for `sample_actions`: the sampled action has the largest log-probability plus noise.

    The noise depends on the seed and the number of the rollout only. So all ranks draw the same, and a resumed run
    draws what an uninterrupted one would.

    Args:
        seed: Seed of the training.
        rollout: Number of the rollout.
        steps: Length T of the rollout.
        num_envs: Number E of environments of all ranks; each rank uses its own part.
        num_actions: Number of discrete actions.

    Returns:
        float32 ``(T, E, num_actions)``.
    """
    generator = torch.Generator().manual_seed(mix_seeds(seed, rollout, 0))  # 1 is for the order of minibatches
    return -torch.empty(steps, num_envs, num_actions).exponential_(generator=generator).log_()


def sample_actions(
    policy: ActorCriticPolicy, observations: Observations, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample actions, like the policy's ``forward``.

    Args:
        policy: The policy.
        observations: uint8 ``(N, C, H, W)``, or a tensor ``(N, ...)`` by key, on the policy's device.
        noise: `action_noise` of this step for discrete actions, ``(N, num_actions)``; None for all others, which
            are drawn from torch's global generator.

    Returns:
        Actions int64 ``(N,)``, or for all other action spaces float32 ``(N, A)`` with flattened axes; and their values
        and log-probabilities, float32 ``(N,)``.
    """
    if noise is None:
        actions, values, log_probs = policy(observations)
        return actions.reshape(len(actions), -1).float(), values.flatten().float(), log_probs.float()
    values, log_probs = _values_and_log_probs(policy, observations)
    sampled = (log_probs + noise).argmax(1, keepdim=True)
    return sampled[:, 0], values, log_probs.gather(1, sampled)[:, 0]


def evaluate_actions(policy: ActorCriticPolicy, observations: Observations, actions: Tensor) -> Predictions:
    """Compute values, log-probabilities and entropy, like the policy's ``evaluate_actions``.

    Args:
        policy: The policy.
        observations: uint8 ``(B, C, H, W)``, or a tensor ``(B, ...)`` by key, on the policy's device.
        actions: int64 ``(B,)``, or float32 ``(B, A)``.
    """
    if not isinstance(policy.action_dist, CategoricalDistribution):
        values, log_probs, entropy = policy.evaluate_actions(observations, actions)
        return Predictions(values.flatten().float(), log_probs.float(), None if entropy is None else entropy.float())
    values, log_probs = _values_and_log_probs(policy, observations)
    entropy = -(log_probs.exp() * log_probs).sum(1)
    return Predictions(values, log_probs.gather(1, actions[:, None])[:, 0], entropy)


def predict_values(policy: ActorCriticPolicy, observations: Observations) -> Tensor:
    """Return the values of states, float32 ``(N,)``, like the policy's ``predict_values``.

    Args:
        policy: The policy.
        observations: uint8 ``(N, C, H, W)``, or a tensor ``(N, ...)`` by key, on the policy's device.
    """
    if not isinstance(policy.action_dist, CategoricalDistribution):
        return policy.predict_values(observations).flatten().float()
    return _values_and_log_probs(policy, observations)[0]


def _values_and_log_probs(policy: ActorCriticPolicy, observations: Observations) -> tuple[Tensor, Tensor]:
    """Return values ``(N,)`` and the log-probabilities ``(N, num_actions)`` of all discrete actions."""
    inputs: Any = _preprocess(policy, observations)
    if policy.share_features_extractor:
        latent_pi, latent_vf = policy.mlp_extractor(policy.features_extractor(inputs))
    else:
        latent_pi = policy.mlp_extractor.forward_actor(policy.pi_features_extractor(inputs))
        latent_vf = policy.mlp_extractor.forward_critic(policy.vf_features_extractor(inputs))
    # The heads take no time, and PPO compares probabilities: they are in single precision.
    with torch.autocast(latent_pi.device.type, enabled=False):
        values: Tensor = policy.value_net(latent_vf.float())
        logits: Tensor = policy.action_net(latent_pi.float())
    return values[:, 0], logits.log_softmax(1)


def _preprocess(policy: ActorCriticPolicy, observations: Observations) -> Observations:
    """Return what the feature extractor takes, as SB3's ``preprocess_obs`` does; images alone take one copy less."""
    if isinstance(observations, dict):
        return preprocess_obs(observations, policy.observation_space, normalize_images=policy.normalize_images)
    device = observations.device.type
    # The integers 0 to 255 are exact in every precision.
    images = observations.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32)
    return images.div_(255) if policy.normalize_images else images


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

"""Actions are those of the policy, and are sampled with its probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from rl import CoordConvCnnPolicy
from rl.learning.actions import action_noise, evaluate_actions, predict_values, sample_actions
from tests.rl.rollouts import ENVIRONMENTS, random_buffer
from tests.rl.training import Dots


@pytest.mark.parametrize("share", [True, False])
def test_sampled_and_evaluated_actions_agree_with_the_policy(share: bool) -> None:
    env = Dots(2, 0)
    policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3, share_features_extractor=share)
    observations = torch.as_tensor(random_buffer().observations[0])
    actions, *sampled = sample_actions(policy, observations, action_noise(0, 0, 1, ENVIRONMENTS, 2)[0])
    values, log_probs, entropy = policy.evaluate_actions(observations, actions)
    torch.testing.assert_close(sampled, [values[:, 0], log_probs])
    for own, theirs in zip(
        evaluate_actions(policy, observations, actions), (values[:, 0], log_probs, entropy), strict=True
    ):
        torch.testing.assert_close(own, theirs)


def test_actions_are_drawn_with_their_probabilities() -> None:
    noise = action_noise(seed=3, rollout=7, steps=100, num_envs=200, num_actions=3)
    probabilities = torch.tensor([0.2, 0.7, 0.1])
    drawn = (probabilities.log() + noise).argmax(2).flatten()
    shares = drawn.bincount(minlength=3) / len(drawn)
    # Five standard deviations of a share of 20000.
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=5 * math.sqrt(0.25 / 20000))
    assert not torch.equal(noise, action_noise(3, 8, 100, 200, 3))
    assert torch.equal(noise, action_noise(3, 7, 100, 200, 3))


def test_half_precision_ends_before_the_heads() -> None:
    env = Dots(2, 0)
    torch.manual_seed(0)
    policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3)
    observations = torch.as_tensor(random_buffer().observations[0])
    noise = action_noise(0, 0, 1, ENVIRONMENTS, 2)[0]
    seen = []
    policy.features_extractor.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    actions, values, log_probs = sample_actions(policy, observations, noise)
    with torch.autocast("cpu", torch.bfloat16):
        half = evaluate_actions(policy, observations, actions)
        last = predict_values(policy, observations)
    assert [tensor.dtype for tensors in seen[1:] for tensor in tensors] == [torch.bfloat16] * 4
    for own, exact in zip((half.values, last, half.log_probs), (values, values, log_probs), strict=True):
        torch.testing.assert_close(own, exact, rtol=0.02, atol=0.01)
        assert not torch.equal(own, own.bfloat16().float())

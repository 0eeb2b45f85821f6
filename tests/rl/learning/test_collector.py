"""Rollouts are those of Stable-Baselines3."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from rl.learning.actions import action_noise, predict_values, sample_actions
from rl.learning.collector import Collector
from rl.learning.timings import Timings
from tests.helpers.devices import EVERY_DEVICE
from tests.rl.training import Dots, Steered


@pytest.mark.parametrize(*EVERY_DEVICE)
def test_a_rollout_is_that_of_sb3(device: str) -> None:
    # Games are 3 to 8 steps long and some are cut off: all of this is in 20 steps.
    steps, games = 20, 4
    torch.manual_seed(0)
    model = PPO("CnnPolicy", Dots(games, 7), n_steps=steps, batch_size=20, gamma=0.9, gae_lambda=0.8, device="cpu")
    noise = action_noise(0, 0, 2 * steps, games, 2)
    coming = iter(noise)
    theirs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model.policy, "forward", lambda observations: sample_actions(model.policy, observations, next(coming))
        )
        _, callback = model._setup_learn(2 * steps * games, CallbackList([]))
        for _ in range(2):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, steps)  # type: ignore[arg-type]  # has one
            buffer = model.rollout_buffer
            names = ("observations", "actions", "values", "log_probs", "advantages")
            theirs.append({name: getattr(buffer, name).copy() for name in names})
    scores = [info["r"] for info in model.ep_info_buffer or ()]
    model.policy.to(device)
    collector = Collector(Dots(games, 7), steps, gamma=0.9, gae_lambda=0.8, device=torch.device(device))
    timings = Timings()
    own_scores = []
    for number in range(2):
        played = collector.collect(model.policy, noise[number * steps : (number + 1) * steps], timings)
        own_scores += played.games.scores
        for name, value in theirs[number].items():
            own = getattr(played, name).cpu().numpy().reshape(value.shape)
            np.testing.assert_allclose(own, value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert own_scores == scores
    assert len(scores) > 10
    assert timings.acting > 0
    assert timings.environment > 0


@pytest.mark.parametrize(*EVERY_DEVICE)
def test_states_that_a_time_limit_cuts_off_have_a_future(device: str) -> None:
    class Cut(Dots):
        truncated = True

        def step_wait(self) -> VecEnvStepReturn:
            images, rewards, dones, infos = super().step_wait()
            for info in infos:
                info["TimeLimit.truncated"] = self.truncated
            return images, rewards, dones, infos

    torch.manual_seed(0)
    policy = A2C("CnnPolicy", Dots(2, 0), device=device).policy
    with torch.no_grad():
        policy.value_net.bias.add_(10)  # what is expected of any state is about 10
    noise = action_noise(0, 0, 10, 2, 2)
    means = []
    for truncated in (True, False):
        env = Cut(2, 0)
        env.truncated = truncated
        collector = Collector(env, 10, gamma=1.0, gae_lambda=0.0, device=torch.device(device))
        means.append(collector.collect(policy, noise, Timings()).advantages.min().item())
    assert means[0] > -2
    assert means[1] < -8


@pytest.mark.parametrize(*EVERY_DEVICE)
def test_actions_that_are_numbers_are_clipped_for_the_game_alone(device: str) -> None:
    env = Steered(3, 0)
    torch.manual_seed(0)
    policy = A2C("CnnPolicy", env, device=device).policy
    collector = Collector(env, 20, gamma=0.9, gae_lambda=1.0, device=torch.device(device))
    played = collector.collect(policy, None, Timings())
    taken = np.stack(env.actions_taken)
    np.testing.assert_array_equal(taken, played.actions.clip(-1, 1).cpu().numpy())
    assert not np.array_equal(taken, played.actions.cpu().numpy())
    images = cast("torch.Tensor", played.observations).flatten(0, 1)
    _, log_probs, _ = policy.evaluate_actions(images, played.actions.flatten(0, 1))
    torch.testing.assert_close(log_probs, played.log_probs.flatten(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [None, OSError("a failing game")])
def test_half_precision_converts_each_weight_once_for_a_rollout(
    error: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, games = 6, 2
    torch.manual_seed(0)
    policy = A2C("CnnPolicy", Dots(games, 0), device="cpu").policy
    collector = Collector(Dots(games, 0), steps, gamma=0.9, gae_lambda=1.0, device=torch.device("cpu"))
    noise = action_noise(0, 0, steps, games, 2)
    weight = policy.get_parameter("features_extractor.linear.0.weight")
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="failing") if error else nullcontext():
            if error:
                patch.setattr(collector.env, "step_wait", Mock(side_effect=error))
            collector.collect(policy, noise, Timings())
        with torch.no_grad():
            weight.mul_(3)  # an update
        with torch.profiler.profile(record_shapes=True) as profile:
            played = collector.collect(policy, noise, Timings())
        assert isinstance(played.observations, torch.Tensor)
        expected = predict_values(policy, played.observations[0])
    converted = [event for event in profile.events() if event.name == "aten::_to_copy"]
    assert [event.input_shapes[0] for event in converted].count(list(weight.shape)) == 1
    torch.testing.assert_close(played.values[0], expected)

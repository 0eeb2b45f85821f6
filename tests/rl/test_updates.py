"""What is learned from a rollout, against Stable-Baselines3's own code and against formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from lightning.pytorch import Trainer
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance

import rl.envs.games
from coordconv_apps.utils.warning_filters import filter_warnings
from rl import CoordConvCnnPolicy
from rl.algorithms import DEFAULTS, AlgorithmName, choose
from rl.data import RLData
from rl.learning.actions import ORDER, act, action_noise, assess, generator
from rl.learning.advantages import Rollout, advantages, explained_variance
from rl.learning.minibatches import batches, whole
from rl.loaders import RolloutLoader
from rl.task import RLTask
from tests.rl.training import SIDE, Dots, make_dots

STEPS, ENVIRONMENTS = 6, 4
PROGRESS = 0.7  # part of the training that is left


@pytest.fixture(autouse=True)
def dots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.envs.games, "make_envs", make_dots)


def random_buffer(seed: int = 0) -> RolloutBuffer:
    """SB3's buffer with something in each of its arrays."""
    space = spaces.Box(0, 255, (1, SIDE, SIDE), np.uint8)
    buffer = RolloutBuffer(STEPS, space, spaces.Discrete(2), "cpu", gae_lambda=0.95, gamma=0.9, n_envs=ENVIRONMENTS)
    random = np.random.default_rng(seed)
    for _ in range(STEPS):
        buffer.add(
            random.integers(256, size=(ENVIRONMENTS, 1, SIDE, SIDE), dtype=np.uint8),
            random.integers(2, size=ENVIRONMENTS),
            random.normal(size=ENVIRONMENTS).astype(np.float32),
            random.random(ENVIRONMENTS) < 0.3,
            torch.tensor(random.normal(size=ENVIRONMENTS), dtype=torch.float32),
            torch.tensor(random.uniform(-0.8, -0.6, ENVIRONMENTS), dtype=torch.float32),
        )
    last = torch.tensor(random.normal(size=ENVIRONMENTS), dtype=torch.float32)
    buffer.compute_returns_and_advantage(last, np.arange(ENVIRONMENTS) % 2 == 0)
    return buffer


def as_rollout(buffer: RolloutBuffer, first: int = 0, number: int = ENVIRONMENTS) -> Rollout:
    own = slice(first, first + number)
    return Rollout(
        torch.tensor(buffer.observations[:, own]),
        torch.tensor(buffer.actions[:, own, 0], dtype=torch.int64),
        torch.tensor(buffer.log_probs[:, own]),
        torch.tensor(buffer.advantages),
        torch.tensor(buffer.values),
        first,
    )


# ------------------------------------------------------------------ a whole update


class GivenLoader(RolloutLoader):
    """Has a rollout already."""

    given: Rollout

    def play(self) -> Rollout:
        return self.given


class GivenData(RLData):
    """Has a rollout already."""

    given: Rollout

    def train_dataloader(self) -> RolloutLoader:
        loader = super().train_dataloader()
        assert isinstance(loader, RolloutLoader)
        loader.__class__, loader.length = GivenLoader, 1
        loader.given = self.given  # type: ignore[attr-defined]  # by now it has one
        return loader


def update(task: RLTask, rollout: Rollout, folder: Path) -> None:
    """One rollout's training, with Lightning."""
    data = GivenData(num_envs=ENVIRONMENTS)
    data.given = rollout
    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_val_batches=0,
        enable_model_summary=False,
        default_root_dir=folder,
        **off,
    )
    with filter_warnings():
        trainer.fit(task, datamodule=data)


def sb3_update(
    kind: type[A2C | PPO],
    task: RLTask,
    orders: Sequence[np.ndarray[Any, Any]],
    **arguments: Any,  # noqa: ANN401  # of the algorithm
) -> OnPolicyAlgorithm:
    """The same, by SB3's own ``train``, from the same weights."""
    model = kind(
        CoordConvCnnPolicy,
        Dots(ENVIRONMENTS, 0),
        n_steps=STEPS,
        policy_kwargs={"features_extractor_kwargs": {"coords": "xy", "where": "first"}, **arguments.pop("policy", {})},
        device="cpu",
        **arguments,
    )
    model.policy.load_state_dict(task.policy.state_dict())
    model.rollout_buffer = random_buffer()
    model.set_logger(Logger(None, []))
    model._current_progress_remaining = PROGRESS
    coming = iter(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "permutation", lambda number: next(coming))
        model.train()
    assert len(list(coming)) == len(orders) - model._n_updates
    return model


def order_of_sb3(order: torch.Tensor) -> np.ndarray[Any, Any]:
    """Numbers of samples as SB3's buffer has them: environment by environment."""
    return (order % ENVIRONMENTS * STEPS + order // ENVIRONMENTS).numpy()


def assert_same(task: RLTask, model: OnPolicyAlgorithm, before: dict[str, torch.Tensor]) -> None:
    after = model.policy.state_dict()
    for name, value in task.policy.state_dict().items():
        assert not torch.equal(value, before[name]), name
        torch.testing.assert_close(value, after[name], rtol=1e-5, atol=2e-6, msg=name)
    assert task.algorithm._n_updates == model._n_updates


def started(**arguments: Any) -> tuple[RLTask, dict[str, torch.Tensor]]:  # noqa: ANN401  # of the task
    """A task that has done some of its training, and its weights."""
    torch.manual_seed(0)
    task = RLTask(coords="xy", game="dots", n_steps=STEPS, total_timesteps=1000, **arguments)
    task.algorithm.num_timesteps = 300
    return task, {name: value.clone() for name, value in task.policy.state_dict().items()}


@pytest.mark.parametrize("normalize", [False, True])
def test_an_update_of_a2c_is_that_of_sb3(tmp_path: Path, normalize: bool) -> None:
    task, before = started(
        algorithm="a2c", ent_coef=0.01, vf_coef=0.25, normalize_advantage=normalize, lr_schedule="linear"
    )
    model = sb3_update(
        A2C,
        task,
        [np.arange(STEPS * ENVIRONMENTS)],
        ent_coef=0.01,
        vf_coef=0.25,
        normalize_advantage=normalize,
        learning_rate=LinearSchedule(7e-4, 0.0, 1.0),
    )
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)


def test_the_optimizer_of_tensorflow_is_that_of_sb3(tmp_path: Path) -> None:
    task, before = started(algorithm="a2c", optimizer="rmsprop_tf", max_grad_norm=0.05)
    policy = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
    model = sb3_update(A2C, task, [np.arange(STEPS * ENVIRONMENTS)], policy=policy, max_grad_norm=0.05)
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)


def test_an_update_of_ppo_is_that_of_sb3(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_epochs": 3, "batch_size": 8, "ent_coef": 0.01, "vf_coef": 0.6}
    task, before = started(algorithm="ppo", clip_range=0.1, clip_schedule="linear", clip_range_vf=0.3, **settings)
    numbers = generator(0, 0, ORDER)
    orders = [order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(3)]
    model = sb3_update(PPO, task, orders, clip_range=LinearSchedule(0.1, 0.0, 1.0), clip_range_vf=0.3, **settings)
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)
    assert task.algorithm._n_updates == 3


def test_a_policy_that_has_come_too_far_is_left_as_with_sb3(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_epochs": 4, "batch_size": 8, "target_kl": 0.004}
    task, before = started(algorithm="ppo", lr=1e-3, **settings)
    numbers = generator(0, 0, ORDER)
    orders = [order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(4)]
    torch.manual_seed(0)
    model = sb3_update(PPO, task, orders, learning_rate=1e-3, **settings)
    assert model._n_updates == 1  # it stopped at the third batch of the first pass
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)


# ------------------------------------------------------------------ its parts


def test_defaults_are_those_of_sb3() -> None:
    models: dict[AlgorithmName, A2C | PPO] = {
        "a2c": A2C("CnnPolicy", Dots(2, 0), device="cpu"),
        "ppo": PPO("CnnPolicy", Dots(2, 0), device="cpu"),
    }
    for algorithm, model in models.items():
        settings = DEFAULTS[algorithm]
        for name in ("n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage"):
            assert getattr(settings, name) == getattr(model, name), name
        assert model.lr_schedule(1) == settings.lr
        assert model.policy.optimizer.defaults["eps"] == settings.optimizer_eps
        assert type(model.policy.optimizer).__name__.lower() == settings.optimizer
        if isinstance(model, PPO):
            for name in ("n_epochs", "batch_size", "target_kl", "clip_range_vf"):
                assert getattr(settings, name) == getattr(model, name), name
            assert FloatSchedule(model.clip_range)(1) == settings.clip_range


@pytest.mark.parametrize("name", ["n_epochs", "batch_size", "target_kl", "clip_range"])
def test_a2c_has_no_settings_of_ppo(name: str) -> None:
    with pytest.raises(ValueError, match=f"model.{name}=1: must be null with model.algorithm=a2c"):
        choose("a2c", {name: 1})


def test_settings_have_ranges() -> None:
    with pytest.raises(ValueError, match=r"^model.gamma=1.5: must be in \[0, 1\]$"):
        choose("ppo", {"gamma": 1.5})


def test_advantages_are_those_of_sb3() -> None:
    buffer = random_buffer()
    random = np.random.default_rng(5)
    last = random.normal(size=ENVIRONMENTS).astype(np.float32)
    dones = np.array([True, False, False, True])
    buffer.compute_returns_and_advantage(torch.tensor(last), dones)
    own = advantages(buffer.rewards, buffer.values, buffer.episode_starts > 0, last, dones, gamma=0.9, gae_lambda=0.95)
    np.testing.assert_array_equal(own, buffer.advantages)


def test_with_lambda_1_advantages_are_returns_minus_values() -> None:
    rewards, values = np.array([[1.0], [2.0], [4.0]], np.float32), np.array([[5.0], [6.0], [7.0]], np.float32)
    starts, done = np.array([[True], [False], [True]]), np.array([False])
    own = advantages(rewards, values, starts, np.array([8.0], np.float32), done, gamma=0.5, gae_lambda=1.0)
    np.testing.assert_allclose(own[:, 0], [1 + 0.5 * 2 - 5, 2 - 6, 4 + 0.5 * 8 - 7])


def test_explained_variance_is_that_of_sb3() -> None:
    values, returns = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = sb3_explained_variance(values.flatten().numpy(), returns.flatten().numpy())
    assert explained_variance(values, returns).item() == pytest.approx(expected, rel=1e-5)
    assert math.isnan(explained_variance(values, torch.ones(5, 3)))


@pytest.mark.parametrize("share", [True, False])
def test_acting_and_assessing_agree_with_the_policy(share: bool) -> None:
    env = Dots(2, 0)
    policy = CoordConvCnnPolicy(env.observation_space, env.action_space, lambda _: 1e-3, share_features_extractor=share)
    observations = torch.as_tensor(random_buffer().observations[0])
    acted = act(policy, observations, action_noise(0, 0, 1, ENVIRONMENTS, 2)[0])
    values, log_probs, entropy = policy.evaluate_actions(observations, acted.actions)
    torch.testing.assert_close(acted.values, values[:, 0])
    torch.testing.assert_close(acted.log_probs, log_probs)
    for own, theirs in zip(
        assess(policy, observations, acted.actions), (values[:, 0], log_probs, entropy), strict=True
    ):
        torch.testing.assert_close(own, theirs)


def test_actions_are_drawn_with_their_probabilities() -> None:
    noise = action_noise(seed=3, rollout=7, steps=100, environments=200, actions=3)
    probabilities = torch.tensor([0.2, 0.7, 0.1])
    drawn = (probabilities.log() + noise).argmax(2).flatten()
    shares = drawn.bincount(minlength=3) / len(drawn)
    # Five standard deviations of a share of 20000.
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=5 * math.sqrt(0.25 / 20000))
    assert not torch.equal(noise, action_noise(3, 8, 100, 200, 3))
    assert torch.equal(noise, action_noise(3, 7, 100, 200, 3))


def test_processes_deal_out_what_one_has() -> None:
    buffer = random_buffer()
    order = torch.randperm(STEPS * ENVIRONMENTS, generator=torch.Generator().manual_seed(1))
    alone = list(batches(as_rollout(buffer), order, 8, normalize_advantage=True))
    parts = [
        list(batches(as_rollout(buffer, first, 2), order, 8, normalize_advantage=True, world_size=2))
        for first in (0, 2)
    ]
    assert sorted(alone[0].log_probs.tolist()) != sorted(parts[0][0].log_probs.tolist())
    for number, batch in enumerate(alone):
        assert batch.size == 8
        assert sum(len(part[number].actions) for part in parts) == 8
        assert all(part[number].size == 4 for part in parts)
        for name in ("log_probs", "advantages", "values", "returns"):
            dealt = torch.cat([getattr(part[number], name) for part in parts])
            assert sorted(dealt.tolist()) == sorted(getattr(batch, name).tolist()), name
        assert batch.advantages.mean().item() == pytest.approx(0, abs=1e-6)
        assert batch.advantages.std().item() == pytest.approx(1, abs=1e-5)
    everything = torch.cat([batch.log_probs for batch in alone])
    assert sorted(everything.tolist()) == sorted(buffer.log_probs.flatten().tolist())


def test_samples_of_a_batch_belong_together() -> None:
    buffer = random_buffer()
    rollout = as_rollout(buffer, first=1, number=2)
    order = torch.arange(STEPS * ENVIRONMENTS)
    (batch,) = batches(rollout, order, len(order), normalize_advantage=False, world_size=2)
    everything = whole(rollout, normalize_advantage=False, world_size=2)
    for own, other in zip(batch, everything, strict=True):
        torch.testing.assert_close(own, other)
    own = slice(1, 3)
    np.testing.assert_array_equal(batch.values.numpy(), buffer.values[:, own].flatten())
    np.testing.assert_allclose(batch.returns.numpy(), buffer.returns[:, own].flatten(), rtol=1e-6)
    np.testing.assert_array_equal(batch.observations.numpy(), buffer.observations[:, own].reshape(-1, 1, SIDE, SIDE))

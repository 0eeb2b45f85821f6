"""An update of A2C or PPO is that of Stable-Baselines3's own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

import rl.envs.games
from coordconv_apps.utils.warning_filters import filter_warnings
from rl import CoordConvCnnPolicy
from rl.data import RLData
from rl.learning.collector import Collector
from rl.learning.minibatches import order_generator
from rl.learning.rollouts import Rollout
from rl.learning.timings import Timings
from rl.tasks import A2C, PPO
from tests.helpers.trainers import own_trainer
from tests.rl.rollouts import ENVIRONMENTS, STEPS, as_rollout, random_buffer
from tests.rl.training import Dots, Steered

pytestmark = pytest.mark.usefixtures("dots")

AnyTask = TypeVar("AnyTask", A2C, PPO)

PROGRESS = 0.7  # part of the training that is left


def update(task: A2C | PPO, rollout: Rollout, folder: Path) -> None:
    """Train on one given rollout, with Lightning."""
    data = RLData(num_envs=ENVIRONMENTS, steps_per_epoch=STEPS * ENVIRONMENTS)
    task.collect_rollout = lambda: rollout  # type: ignore[method-assign]  # in place of playing
    with filter_warnings():
        own_trainer(folder, max_epochs=1, limit_val_batches=0).fit(task, datamodule=data)


def sb3_model(
    kind: type[stable_baselines3.A2C | stable_baselines3.PPO],
    task: A2C | PPO,
    env: VecEnv | None = None,
    **arguments: Any,  # noqa: ANN401  # of the algorithm
) -> OnPolicyAlgorithm:
    """SB3's own object with the weights of a task."""
    model = kind(
        CoordConvCnnPolicy,
        env or Dots(ENVIRONMENTS, 0),
        n_steps=STEPS,
        policy_kwargs={"features_extractor_kwargs": {"coords": "xy", "where": "first"}, **arguments.pop("policy", {})},
        device="cpu",
        **arguments,
    )
    model.policy.load_state_dict(task.policy.state_dict())
    model.set_logger(Logger(None, []))
    return model


def sb3_train(model: OnPolicyAlgorithm, orders: Sequence[np.ndarray[Any, Any]]) -> None:
    """An update by SB3's own ``train``, with its samples in given orders."""
    model._current_progress_remaining = PROGRESS
    coming = iter(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "permutation", lambda number: next(coming))
        model.train()
    assert len(list(coming)) == len(orders) - model._n_updates


def sb3_update(
    kind: type[stable_baselines3.A2C | stable_baselines3.PPO],
    task: A2C | PPO,
    orders: Sequence[np.ndarray[Any, Any]],
    **arguments: Any,  # noqa: ANN401  # of the algorithm
) -> OnPolicyAlgorithm:
    """An update by SB3's own ``train``, from the weights of a task."""
    model = sb3_model(kind, task, **arguments)
    model.rollout_buffer = random_buffer()
    sb3_train(model, orders)
    return model


def order_of_sb3(order: torch.Tensor) -> np.ndarray[Any, Any]:
    """Numbers of samples as SB3's buffer has them: environment by environment."""
    return (order % ENVIRONMENTS * STEPS + order // ENVIRONMENTS).numpy()


def assert_same(task: A2C | PPO, model: OnPolicyAlgorithm, before: dict[str, torch.Tensor], atol: float = 2e-6) -> None:
    after = model.policy.state_dict()
    for name, value in task.policy.state_dict().items():
        assert not torch.equal(value, before[name]), name
        torch.testing.assert_close(value, after[name], rtol=1e-5, atol=atol, msg=name)
    assert task.updates == model._n_updates


def started(kind: type[AnyTask], **arguments: Any) -> tuple[AnyTask, dict[str, torch.Tensor]]:  # noqa: ANN401  # its own
    """A task that has done some of its training, and its weights."""
    torch.manual_seed(0)
    task = kind(coords="xy", game="dots", n_steps=STEPS, total_timesteps=1000, **arguments)
    task.algorithm.num_timesteps = 300
    return task, {name: value.clone() for name, value in task.policy.state_dict().items()}


@pytest.mark.parametrize("normalize", [False, True])
def test_an_update_of_a2c_is_that_of_sb3(tmp_path: Path, normalize: bool) -> None:
    task, before = started(A2C, ent_coef=0.01, vf_coef=0.25, normalize_advantage=normalize, lr_schedule="linear")
    model = sb3_update(
        stable_baselines3.A2C,
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
    task, before = started(A2C, optimizer="rmsprop_tf", max_grad_norm=0.05)
    policy = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
    model = sb3_update(
        stable_baselines3.A2C, task, [np.arange(STEPS * ENVIRONMENTS)], policy=policy, max_grad_norm=0.05
    )
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)


def test_an_update_of_ppo_is_that_of_sb3(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_epochs": 3, "batch_size": 8, "ent_coef": 0.01, "vf_coef": 0.6}
    task, before = started(PPO, clip_range=0.1, clip_schedule="linear", clip_range_vf=0.3, **settings)
    numbers = order_generator(0, 0)
    orders = [order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(3)]
    model = sb3_update(
        stable_baselines3.PPO, task, orders, clip_range=LinearSchedule(0.1, 0.0, 1.0), clip_range_vf=0.3, **settings
    )
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)
    assert task.updates == 3


def test_updates_end_beyond_target_kl_as_with_sb3(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"n_epochs": 4, "batch_size": 8, "target_kl": 0.004}
    task, before = started(PPO, lr=1e-3, **settings)
    numbers = order_generator(0, 0)
    orders = [order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(4)]
    torch.manual_seed(0)
    model = sb3_update(stable_baselines3.PPO, task, orders, learning_rate=1e-3, **settings)
    assert model._n_updates == 1  # it stopped at the third batch of the first pass
    update(task, as_rollout(random_buffer()), tmp_path)
    assert_same(task, model, before)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("kind", [A2C, PPO])
def test_losses_of_continuous_actions_of_every_shape_are_those_of_sb3(
    kind: type[AnyTask], shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.envs.games, "make_envs", lambda game, number, seed, **_: Steered(number, seed, shape))
    settings: dict[str, Any] = {"ent_coef": 0.01} | ({"n_epochs": 2, "batch_size": 8} if kind is PPO else {})
    task, before = started(kind, **settings)
    model = sb3_model(getattr(stable_baselines3, kind.__name__), task, Steered(ENVIRONMENTS, 7, shape), **settings)
    _, callback = model._setup_learn(100, CallbackList([]))
    torch.manual_seed(1)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)  # type: ignore[arg-type]  # has one
    torch.manual_seed(1)
    discount = {"gamma": model.gamma, "gae_lambda": model.gae_lambda}
    collector = Collector(Steered(ENVIRONMENTS, 7, shape), STEPS, **discount, device=torch.device("cpu"))
    rollout = collector.collect(task.policy, None, Timings())
    numbers = order_generator(0, 0)
    passes = 2 if kind is PPO else 1
    orders = [order_of_sb3(torch.randperm(STEPS * ENVIRONMENTS, generator=numbers)) for _ in range(passes)]
    sb3_train(model, orders)
    losses: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(task, "log_losses", lambda found, _: losses.update(found))
    update(task, rollout, tmp_path)
    names = {"value_loss": "value_loss", "entropy_loss": "entropy_loss"}
    names["policy_loss"] = "policy_gradient_loss" if kind is PPO else "policy_loss"
    for own, theirs in names.items():
        assert float(losses[own]) == pytest.approx(model.logger.name_to_value[f"train/{theirs}"], rel=1e-4, abs=1e-5), (
            own
        )
    assert_same(task, model, before, atol=2e-5)  # Adam amplifies the rounding of small gradients


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize("kind", [A2C, PPO])
def test_defaults_are_those_of_sb3(kind: type[A2C | PPO]) -> None:
    model = getattr(stable_baselines3, kind.__name__)("CnnPolicy", Dots(2, 0), device="cpu")
    task = kind(game="dots")
    names = ["n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage"]
    if isinstance(task, PPO):
        names += ["n_epochs", "batch_size", "target_kl", "clip_range_vf"]
        assert FloatSchedule(model.clip_range)(1) == task.hparams["clip_range"]
    for name in names:
        assert task.hparams[name] == getattr(task.algorithm, name) == getattr(model, name), name
    assert model.lr_schedule(1) == task.algorithm.lr_schedule(1) == task.hparams["lr"]
    assert model.policy.optimizer.defaults == {**task.policy.optimizer.defaults, "lr": task.hparams["lr"]}
    assert type(model.policy.optimizer) is type(task.policy.optimizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_stack": 0}, r"model\.frame_stack=0: must be an integer of at least 1"),
        ({"gamma": 1.5}, r"model\.gamma=1.5: must be in \[0, 1\]"),
        ({"n_epochs": 1001}, r"model\.n_epochs=1001: must be an integer from 1 to 1000"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        PPO(game="dots", **arguments)

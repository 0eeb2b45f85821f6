"""The algorithms that are trained here: their settings, with Stable-Baselines3's defaults, and SB3's own objects.

A task owns one of these objects. It has the policy and the optimizer, and is what ``export`` saves and what plays.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from coordconv_apps.utils.argument_checks import Allowed, check_ranges
from rl.extractors import SMALLEST_IMAGE, CoordInit, Where
from rl.policies import CoordConvCnnPolicy

if TYPE_CHECKING:
    from gymnasium import spaces
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

    from coordconv_apps.nn.coords import Coords

AlgorithmName = Literal["a2c", "ppo"]
OptimizerName = Literal["rmsprop", "rmsprop_tf", "adam"]
Decay = Literal["constant", "linear"]


_FROM_0 = (lambda value: value >= 0, "at least 0")
_SHARE = (lambda value: 0 <= value <= 1, "in [0, 1]")
_POSITIVE = (lambda value: value > 0, "above 0")
_COUNT = (lambda value: value >= 1, "an integer of at least 1")

ALLOWED: dict[str, Allowed] = {
    "total_timesteps": _COUNT,
    "image_size": (lambda value: value >= SMALLEST_IMAGE, f"an integer of at least {SMALLEST_IMAGE}"),
    "n_steps": _COUNT,
    "n_epochs": _COUNT,
    "batch_size": _COUNT,
    "gamma": _SHARE,
    "gae_lambda": _SHARE,
    "ent_coef": _FROM_0,
    "vf_coef": _FROM_0,
    "max_grad_norm": _POSITIVE,
    "target_kl": _POSITIVE,
    "clip_range": _POSITIVE,
    "clip_range_vf": _POSITIVE,
    "lr": _POSITIVE,
    "optimizer_eps": _POSITIVE,
}
"""Ranges of `Settings`, and of the task's ``total_timesteps`` and ``image_size``."""


@dataclass(frozen=True)
class Settings:
    """What an algorithm does with a rollout. The names are those of Stable-Baselines3, but for the optimizer's.

    Attributes:
        n_steps: Steps of each environment in a rollout.
        n_epochs: How often each sample of a rollout is learned from. With "a2c": 1.
        batch_size: Samples in an update, over all processes. None: all of the rollout, as "a2c" has it.
        gamma: Discount of a step.
        gae_lambda: Weight of later differences in the advantages; with 1, returns minus values.
        ent_coef: Weight of the entropy in the loss.
        vf_coef: Weight of the values' error in the loss.
        max_grad_norm: Norm that gradients are clipped to.
        normalize_advantage: Whether advantages are normalised in each batch.
        target_kl: A rollout is done with when a batch finds the policy 1.5 times as far from the one that played. None:
            never. With "a2c": None.
        clip_range: How far the ratio of probabilities counts from 1. Without use with "a2c".
        clip_schedule: Whether that stays, or falls to 0 over the training.
        clip_range_vf: The same for the values; None: without bounds. With "a2c": None.
        lr: Learning rate at the beginning.
        lr_schedule: Whether that stays, or falls to 0 over the training.
        optimizer: "rmsprop" is torch's, "rmsprop_tf" TensorFlow's, which the first implementations used.
        optimizer_eps: What the optimizer adds to the denominator.
    """

    n_steps: int
    n_epochs: int
    batch_size: int | None
    gamma: float
    gae_lambda: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float
    normalize_advantage: bool
    target_kl: float | None
    clip_range: float
    clip_schedule: Decay
    clip_range_vf: float | None
    lr: float
    lr_schedule: Decay
    optimizer: OptimizerName
    optimizer_eps: float


_COMMON: dict[str, Any] = {
    "gamma": 0.99,
    "ent_coef": 0.0,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "target_kl": None,
    "clip_range": 0.2,
    "clip_schedule": "constant",
    "clip_range_vf": None,
    "lr_schedule": "constant",
    "optimizer_eps": 1e-5,
}

DEFAULTS: dict[AlgorithmName, Settings] = {
    "a2c": Settings(
        **_COMMON,
        n_steps=5,
        n_epochs=1,
        batch_size=None,
        gae_lambda=1.0,
        normalize_advantage=False,
        lr=7e-4,
        optimizer="rmsprop",
    ),
    "ppo": Settings(
        **_COMMON,
        n_steps=2048,
        n_epochs=10,
        batch_size=64,
        gae_lambda=0.95,
        normalize_advantage=True,
        lr=3e-4,
        optimizer="adam",
    ),
}
"""The arguments' defaults of Stable-Baselines3's ``A2C`` and ``PPO``."""

_OF_DQN: tuple[str, ...] = ("buffer_size", "learning_starts", "tau", "train_freq", "gradient_steps")
_OF_DQN += ("target_update_interval", "exploration_fraction", "exploration_final_eps")
_NOT_OF_DQN: tuple[str, ...] = ("n_steps", "n_epochs", "gae_lambda", "ent_coef", "vf_coef", "normalize_advantage")
_NOT_OF_DQN += ("target_kl", "clip_range", "clip_schedule", "clip_range_vf")
_NOT_OF_A2C = ("n_epochs", "batch_size", "target_kl", "clip_range", "clip_range_vf")
_NOT_OF: dict[str, tuple[str, ...]] = {
    "a2c": (*_NOT_OF_A2C, *_OF_DQN),
    "ppo": _OF_DQN,
    "dqn": _NOT_OF_DQN,
}


def refuse(algorithm: str, given: dict[str, Any]) -> None:
    """Raises `ValueError` if a setting is given that an algorithm does not have.

    Args:
        algorithm: "a2c", "ppo" or "dqn".
        given: Settings by name; those that are None are not given.
    """
    for name in _NOT_OF[algorithm]:
        if given.get(name) is not None:
            raise ValueError(f"model.{name}={given[name]}: must be null with model.algorithm={algorithm}")


def choose(algorithm: AlgorithmName, given: dict[str, Any]) -> Settings:
    """An algorithm's settings: what is given, and its defaults for the rest.

    Args:
        algorithm: The algorithm.
        given: Settings by name; those that are None take the default. Other names are passed over.

    Raises:
        ValueError: A setting is out of its range, or the algorithm has no such setting.
    """
    names = [field.name for field in fields(Settings)]
    own = {name: given[name] for name in names if given.get(name) is not None}
    refuse(algorithm, given)
    settings = Settings(**{**vars(DEFAULTS[algorithm]), **own})
    check_ranges(vars(settings), {name: allowed for name, allowed in ALLOWED.items() if name in names})
    return settings


class Optimized(Protocol):
    """Settings with an optimizer."""

    @property
    def optimizer(self) -> OptimizerName:
        """Its kind."""

    @property
    def optimizer_eps(self) -> float:
        """What it adds to the denominator."""


def optimizer_of(settings: Optimized) -> dict[str, Any]:
    """The optimizer, as SB3's policies take it: ``optimizer_class`` and ``optimizer_kwargs``."""
    if settings.optimizer == "adam":
        return {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": settings.optimizer_eps}}
    kinds = {"rmsprop": torch.optim.RMSprop, "rmsprop_tf": RMSpropTFLike}
    options = {"alpha": 0.99, "eps": settings.optimizer_eps, "weight_decay": 0}
    return {"optimizer_class": kinds[settings.optimizer], "optimizer_kwargs": options}


def build(
    algorithm: AlgorithmName,
    settings: Settings,
    observation_space: spaces.Box,
    action_space: spaces.Space[Any],
    *,
    coords: Coords,
    where: Where,
    coord_init: CoordInit = "random",
) -> OnPolicyAlgorithm:
    """Makes Stable-Baselines3's object of an algorithm with a CoordConv policy, on the CPU and without environments.

    Args:
        algorithm: The algorithm.
        settings: Its settings.
        observation_space: Of images, channels first.
        action_space: Of the environments.
        coords: Coordinates that the policy's convolutions see.
        where: Which of them.
        coord_init: How their coordinate weights start.

    Raises:
        ValueError: The policy cannot be made for these observations.
    """
    arguments: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("n_steps", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "normalize_advantage")
    }
    kind: type[A2C | PPO] = A2C
    if algorithm == "ppo":
        kind = PPO
        arguments.update((name, getattr(settings, name)) for name in ("n_epochs", "target_kl", "clip_range_vf"))
        arguments["batch_size"] = settings.batch_size
        arguments["clip_range"] = schedule_of(settings.clip_range, settings.clip_schedule)
    policy_kwargs = {
        **optimizer_of(settings),
        "features_extractor_kwargs": {"coords": coords, "where": where, "coord_init": coord_init},
    }
    made = kind(
        CoordConvCnnPolicy,
        env=None,  # type: ignore[arg-type]  # as SB3's own load does
        learning_rate=schedule_of(settings.lr, settings.lr_schedule),
        policy_kwargs=policy_kwargs,
        device="cpu",
        _init_setup_model=False,
        **arguments,
    )
    # SB3's rollout buffer is not used: one of a single step and environment takes little memory.
    made.observation_space, made.action_space, made.n_envs, made.n_steps = observation_space, action_space, 1, 1
    made._setup_model()
    made.n_steps = settings.n_steps
    return made


def schedule_of(value: float, decay: Decay) -> float | LinearSchedule:
    """A value that stays, or falls to 0 over the training, as Stable-Baselines3 takes it."""
    return value if decay == "constant" else LinearSchedule(value, 0.0, 1.0)

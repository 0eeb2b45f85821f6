"""Build Stable-Baselines3's A2C, PPO and DQN with CoordConv policies, on the CPU and without environments.

A task owns one of these objects: it holds the policy and the optimizer, and ``export`` saves it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from rl.sb3_internals import set_up_model

OptimizerName = Literal["rmsprop", "rmsprop_tf", "adam"]
Schedule = Literal["constant", "linear"]

_OPTIMIZERS: dict[OptimizerName, type[torch.optim.Optimizer]] = {
    "rmsprop": torch.optim.RMSprop,
    "rmsprop_tf": RMSpropTFLike,  # TensorFlow's, which the first implementations used
    "adam": torch.optim.Adam,
}


def build_algorithm(
    algorithm: type[A2C | PPO | DQN],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    hparams: Mapping[str, Any],
    **arguments: Any,  # noqa: ANN401  # SB3's
) -> A2C | PPO | DQN:
    """Build an object of SB3 from the arguments of a task.

    Its rollout or replay buffer holds a single step: the full size takes gigabytes and is needed for training only.

    Args:
        algorithm: SB3's class.
        observation_space: Space of images, channels first, or a Dict with such images.
        action_space: Space of the actions.
        hparams: Arguments of the task. Those with the name of an argument of SB3 are passed to SB3.
        **arguments: Further arguments of SB3, which replace a task's.

    Raises:
        ValueError: The policy cannot be built for these observations.
    """
    names = inspect.signature(algorithm).parameters.keys() & hparams.keys()
    given = {name: hparams[name] for name in sorted(names)} | arguments
    given["policy"] = (
        "CoordConvMultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "CoordConvCnnPolicy"
    )
    buffer = "buffer_size" if "buffer_size" in given else "n_steps"
    size, given[buffer] = given[buffer], 1
    given["learning_rate"] = make_schedule(hparams["lr"], hparams["lr_schedule"])
    given["policy_kwargs"] = {
        **optimizer_arguments(hparams["optimizer"], hparams["optimizer_eps"]),
        "features_extractor_kwargs": {name: hparams[name] for name in ("coords", "where", "coord_init", "coord_scale")},
    }
    made = algorithm(**given, env=None, device="cpu", _init_setup_model=False)  # type: ignore[arg-type]  # as in SB3's load
    made.observation_space, made.action_space, made.n_envs = observation_space, action_space, 1
    set_up_model(made)
    setattr(made, buffer, size)
    return made


def optimizer_arguments(optimizer: OptimizerName, eps: float) -> dict[str, Any]:
    """Return the arguments of SB3's policies for an optimizer; ``eps`` is added to the denominator."""
    return {"optimizer_class": _OPTIMIZERS[optimizer], "optimizer_kwargs": {"eps": eps}}


def make_schedule(value: float, schedule: Schedule) -> float | LinearSchedule:
    """Return a value that stays constant or falls linearly to 0 over the training, in SB3's form."""
    return value if schedule == "constant" else LinearSchedule(value, 0.0, 1.0)

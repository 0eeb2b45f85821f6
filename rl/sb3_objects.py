"""Build Stable-Baselines3's A2C, PPO and DQN with CoordConv policies, on the CPU and without environments.

A task owns one of these objects: it holds the policy and the optimizer, and is what ``export`` saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from rl.policies import CoordConvCnnPolicy, CoordConvDQNPolicy
from rl.sb3_internals import set_up_model

if TYPE_CHECKING:
    from gymnasium import spaces

OnPolicy = TypeVar("OnPolicy", A2C, PPO)
OptimizerName = Literal["rmsprop", "rmsprop_tf", "adam"]
Schedule = Literal["constant", "linear"]


def build_on_policy(
    algorithm: type[OnPolicy],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    n_steps: int,
    policy_kwargs: dict[str, Any],
    **arguments: Any,  # noqa: ANN401  # SB3's
) -> OnPolicy:
    """Build an A2C or PPO object.

    Args:
        algorithm: SB3's class.
        observation_space: Space of images, channels first.
        action_space: Space of the actions.
        n_steps: Steps of each environment in a rollout.
        policy_kwargs: Arguments of the policy: `optimizer_arguments` and those of the feature extractor.
        **arguments: SB3's other arguments.

    Raises:
        ValueError: The policy cannot be built for these observations.
    """
    made = algorithm(
        CoordConvCnnPolicy,
        env=None,  # type: ignore[arg-type]  # as in SB3's own load
        policy_kwargs=policy_kwargs,
        device="cpu",
        _init_setup_model=False,
        **arguments,
    )
    # SB3's rollout buffer is not used: a buffer of a single step and environment needs little memory.
    made.observation_space, made.action_space, made.n_envs, made.n_steps = observation_space, action_space, 1, 1
    set_up_model(made)
    made.n_steps = n_steps
    return made


def build_dqn(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    buffer_size: int,
    policy_kwargs: dict[str, Any],
    **arguments: Any,  # noqa: ANN401  # SB3's
) -> DQN:
    """Build a DQN object without a replay buffer.

    Args:
        observation_space: Space of images, channels first.
        action_space: Space of discrete actions.
        buffer_size: Steps of all environments that the replay buffer will hold.
        policy_kwargs: Arguments of the policy: `optimizer_arguments` and those of the feature extractor.
        **arguments: SB3's other arguments.

    Raises:
        ValueError: The policy cannot be built for these observations.
    """
    made = DQN(
        CoordConvDQNPolicy,
        env=None,  # type: ignore[arg-type]  # as in SB3's own load
        buffer_size=1,  # the true size takes gigabytes and is needed in a training only
        policy_kwargs=policy_kwargs,
        device="cpu",
        _init_setup_model=False,
        **arguments,
    )
    made.observation_space, made.action_space, made.n_envs = observation_space, action_space, 1
    set_up_model(made)
    made.replay_buffer, made.buffer_size = None, buffer_size
    made.policy.train()  # Lightning warns of networks in evaluation mode, such as SB3's target network
    made.q_net_target.requires_grad_(False)  # it follows the other network and is not trained
    return made


def optimizer_arguments(optimizer: OptimizerName, eps: float) -> dict[str, Any]:
    """Return the ``optimizer_class`` and ``optimizer_kwargs`` of SB3's policies.

    Args:
        optimizer: "adam", "rmsprop" (torch's), or "rmsprop_tf" (TensorFlow's, of the first implementations).
        eps: Added to the denominator.
    """
    if optimizer == "adam":
        return {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": eps}}
    classes = {"rmsprop": torch.optim.RMSprop, "rmsprop_tf": RMSpropTFLike}
    return {
        "optimizer_class": classes[optimizer],
        "optimizer_kwargs": {"alpha": 0.99, "eps": eps, "weight_decay": 0},
    }


def make_schedule(value: float, schedule: Schedule) -> float | LinearSchedule:
    """Return a value that stays constant or falls linearly to 0 over the training, in SB3's form."""
    return value if schedule == "constant" else LinearSchedule(value, 0.0, 1.0)

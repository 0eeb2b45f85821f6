"""DQN (Mnih et al., 2015): its settings, with Stable-Baselines3's defaults, and SB3's own object.

How it is trained is in `rl.replay`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from stable_baselines3 import DQN
from torch import Tensor, nn

from coordconv_apps.utils.argument_checks import Allowed, check_ranges
from rl.algorithms import ALLOWED, Decay, OptimizerName, optimizer_of, schedule_of
from rl.extractors import CoordInit, Where
from rl.policies import CoordConvDQNPolicy

if TYPE_CHECKING:
    from gymnasium import spaces
    from lightning.pytorch import Trainer

    from coordconv_apps.nn.coords import Coords

_SHARE = (lambda value: 0 <= value <= 1, "in [0, 1]")
_COUNT = (lambda value: value >= 1, "an integer of at least 1")

DQN_ALLOWED: dict[str, Allowed] = {
    "buffer_size": _COUNT,
    "learning_starts": (lambda value: value >= 0, "an integer of at least 0"),
    "tau": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "train_freq": _COUNT,
    "gradient_steps": _COUNT,
    "target_update_interval": _COUNT,
    "exploration_fraction": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "exploration_final_eps": _SHARE,
    **{name: ALLOWED[name] for name in ("batch_size", "gamma", "max_grad_norm", "lr", "optimizer_eps")},
}
"""Ranges of `DQNSettings`."""


@dataclass(frozen=True)
class DQNSettings:
    """DQN's settings, with the names and, but for the optimizer, the defaults of Stable-Baselines3's ``DQN``.

    Attributes:
        buffer_size: Latest steps of all environments that are learned from.
        learning_starts: Steps that are played at random before anything is learned.
        batch_size: Steps in an update.
        tau: How far the target network follows each time, in (0, 1]; 1 makes it a copy.
        gamma: Discount of a step.
        train_freq: Steps of each environment between updates.
        gradient_steps: Updates each time.
        target_update_interval: Steps of all environments after which the target network follows.
        exploration_fraction: Part of the training in which the share of random actions falls from 1, in (0, 1].
        exploration_final_eps: What it falls to.
        max_grad_norm: Norm that gradients are clipped to.
        lr: Learning rate at the beginning.
        lr_schedule: Whether that stays, or falls to 0 over the training.
        optimizer: As of `rl.algorithms.Settings`.
        optimizer_eps: What the optimizer adds to the denominator; the default is torch's of Adam.
    """

    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 32
    tau: float = 1.0
    gamma: float = 0.99
    train_freq: int = 4
    gradient_steps: int = 1
    target_update_interval: int = 10_000
    exploration_fraction: float = 0.1
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    lr: float = 1e-4
    lr_schedule: Decay = "constant"
    optimizer: OptimizerName = "adam"
    optimizer_eps: float = 1e-8


def choose_dqn(given: dict[str, Any]) -> DQNSettings:
    """DQN's settings: what is given, and the defaults for the rest.

    Args:
        given: Settings by name; those that are None take the default. Of other names, only the "total_timesteps" count.

    Raises:
        ValueError: A setting is out of its range, or nothing would be learned in these steps.
    """
    names = [field.name for field in fields(DQNSettings)]
    settings = DQNSettings(**{name: given[name] for name in names if given.get(name) is not None})
    check_ranges(vars(settings), DQN_ALLOWED)
    total = given.get("total_timesteps")
    if total is not None and settings.learning_starts >= total:
        raise ValueError(
            f"model.learning_starts={settings.learning_starts}: must be below model.total_timesteps, which is {total}"
        )
    return settings


def build_dqn(
    settings: DQNSettings,
    observation_space: spaces.Box,
    action_space: spaces.Space[Any],
    *,
    coords: Coords,
    where: Where,
    coord_init: CoordInit = "random",
) -> DQN:
    """Makes Stable-Baselines3's ``DQN`` with a CoordConv policy, on the CPU, without environments or a replay buffer.

    Args:
        settings: Its settings.
        observation_space: Of images, channels first.
        action_space: Of the environments.
        coords: Coordinates that the policy's convolutions see.
        where: Which of them.
        coord_init: How their coordinate weights start.

    Raises:
        ValueError: There is no choice of actions, or the policy cannot be made for these observations.
    """
    if not hasattr(action_space, "n"):
        raise ValueError(f"model.algorithm=dqn: actions are {action_space}: must be a choice of one out of several")
    names = ["learning_starts", "batch_size", "tau", "gamma", "train_freq", "gradient_steps", "target_update_interval"]
    names += ["exploration_fraction", "exploration_final_eps", "max_grad_norm"]
    policy_kwargs = {
        **optimizer_of(settings),
        "features_extractor_kwargs": {"coords": coords, "where": where, "coord_init": coord_init},
    }
    made = DQN(
        CoordConvDQNPolicy,
        env=None,  # type: ignore[arg-type]  # as SB3's own load does
        learning_rate=schedule_of(settings.lr, settings.lr_schedule),
        buffer_size=1,
        policy_kwargs=policy_kwargs,
        device="cpu",
        _init_setup_model=False,
        **{name: getattr(settings, name) for name in names},
    )
    made.observation_space, made.action_space, made.n_envs = observation_space, action_space, 1
    made._setup_model()
    # That of a single step was for SB3 to be content. The true one takes gigabytes, and is only of use in a training.
    made.replay_buffer, made.buffer_size = None, settings.buffer_size
    made.policy.train()  # else Lightning warns of SB3's target network at the start
    made.q_net_target.requires_grad_(False)  # it only follows, and is none of the parameters that learn
    return made


def evaluated(algorithm: DQN) -> DQN:
    """The same policy with the share of random actions that it ends with: what an evaluation is of, at any time."""
    player = copy(algorithm)
    player.exploration_rate = algorithm.exploration_final_eps
    return player


def check_dqn(trainer: Trainer) -> None:
    """Raises `ValueError` if a trainer has more than one process, or another precision than single."""
    if trainer.world_size > 1:
        raise ValueError(
            f"trainer.devices={trainer.num_devices}: must be 1 with model.algorithm=dqn, which one process trains"
        )
    if trainer.precision != "32-true":
        raise ValueError(f"trainer.precision={trainer.precision}: must be 32-true with model.algorithm=dqn")


class QValues(nn.Module):
    """The network that plays, without its target, to be exported.

    Args:
        algorithm: Whose network.
    """

    def __init__(self, algorithm: DQN) -> None:
        super().__init__()
        self.q_net = algorithm.q_net

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Q-values ``(B, A)`` and the largest of them ``(B,)``, for observations uint8 ``(B, C, H, W)``."""
        q = self.q_net(observations)
        return q, q.amax(1)

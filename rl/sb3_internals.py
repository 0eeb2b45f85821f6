"""Private attributes of Stable-Baselines3 (SB3) that have no public counterpart, with the reason for each use.

Checked with stable-baselines3 2.9.2. ``tests/rl/test_sb3_internals.py`` fails where a new version changes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_baselines3.common.policies import ActorCriticPolicy

if TYPE_CHECKING:
    from stable_baselines3 import A2C, DQN, PPO
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv

UNNEEDED_STATE = (
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
    "tensorboard_log",
)
"""Attributes of an algorithm to exclude from ``save``: the rollout in progress and folders of this machine.

``save`` takes names of attributes, and most of these are private.
"""


def has_own_predict(policy: ActorCriticPolicy) -> bool:
    """Return whether a policy overrides how SB3's actor-critic policies choose actions, as recurrent ones do.

    ``_predict`` is the method that SB3 documents for subclasses to override; there is no public one.
    """
    return type(policy)._predict is not ActorCriticPolicy._predict


def set_up_model(algorithm: A2C | PPO | DQN) -> None:
    """Create the networks of an algorithm that was built without environments, as SB3's own ``load`` does.

    The public constructor creates them only where it gets environments.
    """
    algorithm._setup_model()


def get_updates(algorithm: BaseAlgorithm) -> int:
    """Return the number of updates, which SB3 counts and saves under a private name."""
    return algorithm._n_updates


def set_updates(algorithm: BaseAlgorithm, updates: int) -> None:
    """Set the number of updates."""
    algorithm._n_updates = updates


def start_dqn_learning(algorithm: DQN, env: VecEnv, total_timesteps: int, callback: BaseCallback) -> None:
    """Do what ``DQN.learn`` does before its loop, for a training that continues from ``num_timesteps``.

    The public ``learn`` runs to its end and cannot pause between two updates. ``_n_calls``, which decides when the
    target network is updated, is set as if the training had run in one piece, and so are the schedules. The public
    ``set_env`` takes the rows of a stack of images for its channels if they are fewer. Without a ``_last_obs``, the new
    environments are reset.
    """
    algorithm.env, algorithm._last_obs = env, None
    algorithm._n_calls = algorithm.num_timesteps // algorithm.n_envs
    algorithm._setup_learn(total_timesteps - algorithm.num_timesteps, callback, reset_num_timesteps=False)

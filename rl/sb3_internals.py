"""Private attributes of Stable-Baselines3 (SB3) that have no public counterpart, with the reason for each use.

Checked with stable-baselines3 2.9.2. ``tests/rl/test_sb3_internals.py`` fails where a new version changes them.
"""

from __future__ import annotations

from stable_baselines3.common.policies import ActorCriticPolicy

UNNEEDED_STATE = (
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
    "tensorboard_log",
)
"""Attributes of an algorithm that ``save`` is told to leave out: the rollout in progress and folders of this machine.

``save`` takes names of attributes, and most of these are private.
"""


def has_own_predict(policy: ActorCriticPolicy) -> bool:
    """Return whether a policy chooses its actions by other code than SB3's actor-critic policies, as recurrent ones do.

    ``_predict`` is the method that SB3 documents for subclasses to override, so no public name tells.
    """
    return type(policy)._predict is not ActorCriticPolicy._predict

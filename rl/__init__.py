"""Reinforcement learning with CoordConv: policies for plain Stable-Baselines3, and their training with Lightning.

Importing this package registers its policies with Stable-Baselines3 by name and the game ``CoordConv/Catch-v0`` with
Gymnasium. It imports neither Lightning nor emulators; the Lightning tasks `A2C`, `PPO` and `DQN` do so when they are
first used. ``python -m rl`` imports everything later, so that its help is printed at once.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

from coordconv_apps.utils.extras import required_extra
from rl.envs.threads import share_cores

if TYPE_CHECKING:
    from rl.tasks import A2C as A2C
    from rl.tasks import DQN as DQN
    from rl.tasks import PPO as PPO

_STARTED = sys.argv[0] == "-m"  # `python -m ...` has just started, and torch is not imported yet
if _STARTED:
    share_cores()

if not (_STARTED and ("-m", "rl") in pairwise(sys.orig_argv)):
    with required_extra("rl") if _STARTED else nullcontext():  # one line without the packages of the extra
        from rl.registration import (
            CoordConvCnnPolicy,
            CoordConvCombinedExtractor,
            CoordConvDQNMultiInputPolicy,
            CoordConvDQNPolicy,
            CoordConvMultiInputPolicy,
            CoordConvNatureCNN,
        )

__all__ = [
    "CoordConvCnnPolicy",
    "CoordConvCombinedExtractor",
    "CoordConvDQNMultiInputPolicy",
    "CoordConvDQNPolicy",
    "CoordConvMultiInputPolicy",
    "CoordConvNatureCNN",
]

_TASKS = ("A2C", "DQN", "PPO")


def __getattr__(name: str) -> object:
    """Import a Lightning task, and within ``python -m rl`` any public name, when it is first used."""
    if name in (*_TASKS, *__all__):
        return getattr(importlib.import_module("rl.tasks" if name in _TASKS else "rl.registration"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Untrained players of every kind of policy, and observations for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from torch import nn

from rl import (
    CoordConvCnnPolicy,
    CoordConvDQNMultiInputPolicy,
    CoordConvDQNPolicy,
    CoordConvMultiInputPolicy,
    CoordConvNatureCNN,
)
from tests.rl.tiny import SIDE, make_a2c, make_dqn, make_env

SMALL = {"features_dim": 16}
DICT = {"features_extractor_kwargs": {"cnn_output_dim": 16}}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "a2c": {"policy": CoordConvCnnPolicy},
    "plain": {},
    "all": {
        "policy": CoordConvCnnPolicy,
        "policy_kwargs": {"features_extractor_kwargs": {**SMALL, "coords": "xyr", "where": "all", "coord_scale": 0.5}},
    },
    "unshared": {
        "policy": CoordConvCnnPolicy,
        "policy_kwargs": {"features_extractor_kwargs": SMALL, "share_features_extractor": False},
    },
    "hidden": {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [9, 5]}, "activation_fn": nn.ReLU}},
    "extractor": {
        "policy_kwargs": {
            "features_extractor_class": CoordConvNatureCNN,
            "features_extractor_kwargs": {"coord_scale": 2},  # not a float
            "net_arch": [],
        }
    },
    "dqn": {"policy": CoordConvDQNPolicy},
    "dqn plain": {},
    "dict": {"policy": CoordConvMultiInputPolicy, "policy_kwargs": DICT},
    "dqn dict": {"policy": CoordConvDQNMultiInputPolicy, "policy_kwargs": DICT},
    "continuous": {"policy": CoordConvCnnPolicy},
}
KINDS = tuple(ARGUMENTS)


def make_player(kind: str) -> Any:  # noqa: ANN401  # of several classes
    env = make_env(kind="dict" if "dict" in kind else "uint8", actions=0 if kind == "continuous" else 3)
    return (make_dqn if "dqn" in kind else make_a2c)(env, **ARGUMENTS[kind])


def observe(player: Any, count: int = 20) -> Any:  # noqa: ANN401
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (count, 2, SIDE, SIDE), dtype=np.uint8)
    if isinstance(player.observation_space, spaces.Dict):
        return {"image": image, "vector": generator.normal(size=(count, 2)).astype(np.float32)}
    return image

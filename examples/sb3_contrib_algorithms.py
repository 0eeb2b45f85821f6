"""Train the algorithms of sb3-contrib with CoordConv feature extractors: TRPO, QR-DQN, RecurrentPPO and MaskablePPO.

sb3-contrib's own policies stay; `CoordConvNatureCNN` takes the place of their NatureCNN. `net_arch=[]` keeps the heads
as small as on NatureCNN: Stable-Baselines3 adds two hidden layers after any other extractor.

Run it from the clone, some minutes for all four on two CPU cores (`pip install sb3-contrib`):

    python examples/sb3_contrib_algorithms.py
    python examples/sb3_contrib_algorithms.py --algorithms trpo --coords none --timesteps 200000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from sb3_contrib import QRDQN, TRPO, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from rl import CoordConvNatureCNN  # importing rl also registers the game with Gymnasium

GAME = "CoordConv/Catch-v0"
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], str, dict[str, Any]]] = {
    "trpo": (TRPO, "CnnPolicy", {"n_steps": 64, "batch_size": 256, "learning_rate": 7e-4, "gamma": 0.95}),
    "qrdqn": (QRDQN, "CnnPolicy", {"buffer_size": 20_000, "learning_starts": 2_000, "gamma": 0.95}),
    "recurrent_ppo": (RecurrentPPO, "CnnLstmPolicy", {"n_steps": 64, "batch_size": 256, "gamma": 0.95}),
    "maskable_ppo": (MaskablePPO, "CnnPolicy", {"n_steps": 64, "batch_size": 256, "gamma": 0.95}),
}


def allowed_actions(env: gymnasium.Env[Any, Any]) -> NDArray[np.bool_]:
    """Return the mask of the actions that have an effect: for `MaskablePPO`; in Catch, all three always have one."""
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    return np.ones(env.action_space.n, bool)


def masked(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Tell `MaskablePPO` the allowed actions of an environment."""
    return ActionMasker(env, allowed_actions)


def train(name: str, coords: str, timesteps: int, num_envs: int, episodes: int, **settings: Any) -> float:  # noqa: ANN401
    """Train one algorithm, and return its mean score."""
    algorithm, policy, arguments = ALGORITHMS[name]
    env = make_vec_env(GAME, n_envs=num_envs, seed=0, wrapper_class=masked if algorithm is MaskablePPO else None)
    extractor = {"coords": coords, "coord_init": "zero"}
    policy_kwargs = {"features_extractor_class": CoordConvNatureCNN, "features_extractor_kwargs": extractor}
    agent = algorithm(policy, env, policy_kwargs={**policy_kwargs, "net_arch": []}, seed=0, **{**arguments, **settings})
    agent.learn(timesteps)
    if isinstance(agent, MaskablePPO):
        scores = evaluate_masked(agent, env, n_eval_episodes=episodes)
    else:
        scores = evaluate_policy(agent, env, n_eval_episodes=episodes)
    assert isinstance(scores[0], float)
    return scores[0]


def main(args: Sequence[str] | None = None) -> dict[str, float]:
    """Train each algorithm; print and return the mean scores."""
    parser = argparse.ArgumentParser(description="Train sb3-contrib's algorithms with CoordConv feature extractors.")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--coords", choices=("none", "xy", "xyr"), default="xy")
    parser.add_argument("--timesteps", type=int, default=60_000)
    parser.add_argument("--num_envs", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=20, help="episodes of an evaluation")
    options = parser.parse_args(args)
    for name in ("timesteps", "num_envs", "episodes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    scores = {}
    for name in options.algorithms:
        scores[name] = train(name, options.coords, options.timesteps, options.num_envs, options.episodes)
        print(f"{name:14} score {scores[name]:.2f} (best: 5, random actions: -2.5)", flush=True)
    return scores


if __name__ == "__main__":
    main()

"""Let a player act in environments, step after step, with actions that depend on a seed alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecMonitor, is_vecenv_wrapped

from coordconv_apps.utils.random_state import random_state, restore_random_state
from rl.sb3_internals import has_own_predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv


Player: TypeAlias = BaseAlgorithm | BasePolicy
"""A policy of Stable-Baselines3, or an algorithm that plays with its policy."""


def policy_of(player: Player) -> BasePolicy:
    """Return the policy of an algorithm, or the player itself if it is a policy."""
    return player.policy if isinstance(player, BaseAlgorithm) else player


@contextmanager
def evaluation_mode(player: Player) -> Iterator[None]:
    """Put a player's networks into evaluation mode and isolate the random numbers of the training.

    On exit, modules that were in training mode return to it, and the global generators (Python, NumPy, torch, the
    policy's GPU) and that of the player's action space have their previous state.
    """
    policy = policy_of(player)
    space = player.action_space  # DQN draws random actions from its generator
    training = [module for module in policy.modules() if module.training]
    before, before_space = random_state(policy.device), space.np_random.bit_generator.state
    policy.set_training_mode(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        restore_random_state(before, policy.device)
        space.np_random.bit_generator.state = before_space


Actor: TypeAlias = "Callable[[Any, NDArray[np.bool_]], NDArray[Any]]"
"""Function from observations ``(E, ...)`` and whether each is the first of its episode to actions ``(E, ...)``."""


def _predicting_actor(player: Player, seed: int, deterministic: bool) -> Actor:
    """Act through ``predict``, with random numbers of the global generators."""
    hidden: tuple[NDArray[Any], ...] | None = None
    if not deterministic:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        player.action_space.seed(seed)

    def act(observations: Any, starts: NDArray[np.bool_]) -> NDArray[Any]:  # noqa: ANN401  # an array, or a dict of them
        nonlocal hidden
        actions, hidden = player.predict(observations, hidden, starts, deterministic)
        return actions

    return act


def _sampling_actor(policy: ActorCriticPolicy, seed: int, num_envs: int) -> Actor:
    """Sample the actions of each environment with a generator of its own.

    So the scores of an environment do not depend on which other environments are played beside it, or on the number of
    processes.
    """
    generators = [np.random.default_rng(seed + number) for number in range(num_envs)]

    def act(observations: Any, starts: NDArray[np.bool_]) -> NDArray[Any]:  # noqa: ANN401  # an array, or a dict of them
        with torch.no_grad():
            distribution = policy.get_distribution(policy.obs_to_tensor(observations)[0]).distribution
            probabilities = distribution.probs.cpu().double().numpy()  # type: ignore[union-attr]  # of one kind only
        cumulative = probabilities.cumsum(1)
        uniform = np.array([generator.random() for generator in generators])[:, None] * cumulative[:, -1:]
        return (cumulative <= uniform).sum(1)  # type: ignore[no-any-return]  # untyped in numpy

    return act


class Step(NamedTuple):
    """One step of all E environments."""

    observations: Any  # before the step, ``(E, ...)``, or a dict of such arrays
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    over: NDArray[np.bool_]  # whether the game ended, not only a life
    infos: list[dict[str, Any]]


def play(
    player: Player, env: VecEnv, *, deterministic: bool, seed: int, before: Callable[[], None] | None = None
) -> Iterator[Step]:
    """Yield steps without end. Use it inside `evaluation_mode`: it may seed the global random number generators.

    Args:
        player: Policy or algorithm.
        env: Environments. They are seeded and reset: environment ``i`` gets ``seed + i``.
        deterministic: Whether to take the most probable actions instead of sampling.
        seed: Seed of the environments and of sampled actions. With an actor-critic policy and discrete actions, those
            of environment ``i`` depend on ``seed + i`` and on its observations only.
        before: Called before each step.
    """
    # The same rule as in SB3's evaluate_policy: without any monitor, the first ``done`` ends the game.
    monitored = is_vecenv_wrapped(env, VecMonitor) or any(env.env_is_wrapped(Monitor))
    policy = policy_of(player)
    if (
        not deterministic
        and isinstance(policy, ActorCriticPolicy)
        and isinstance(policy.action_dist, CategoricalDistribution)
        and not has_own_predict(policy)
    ):
        act = _sampling_actor(policy, seed, env.num_envs)
    else:
        act = _predicting_actor(player, seed, deterministic)
    env.seed(seed)
    observations: Any = env.reset()
    dones = np.ones(env.num_envs, dtype=bool)
    while True:
        actions = act(observations, dones)
        if before is not None:
            before()
        following, rewards, dones, infos = env.step(actions)
        over = np.array([bool(d) and ("episode" in i or not monitored) for d, i in zip(dones, infos, strict=True)])
        yield Step(observations, actions, rewards, over, infos)
        observations = following

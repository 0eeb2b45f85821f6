"""Playing on and on: a player acts in environments, and takes nothing from the global random number generators."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecMonitor, is_vecenv_wrapped

from coordconv_apps.utils.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv


class Player(Protocol):
    """Whatever acts as policies and algorithms of Stable-Baselines3 do."""

    def predict(
        self,
        observation: Any,  # noqa: ANN401  # an array, or a dict of them
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """The actions for a batch of observations, and the next hidden state."""


def policy_of(player: Player) -> BasePolicy | None:
    """The policy itself: that of an algorithm, or the player if it is one; None for other players."""
    policy = player.policy if isinstance(player, BaseAlgorithm) else player
    return policy if isinstance(policy, BasePolicy) else None


@contextmanager
def evaluation_mode(player: Player) -> Iterator[None]:
    """Puts a player's networks into evaluation mode, and those that were training back into it at the end."""
    policy = policy_of(player)
    training = [] if policy is None else [module for module in policy.modules() if module.training]
    if policy is not None:
        policy.set_training_mode(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Predicting:
    """Acts through ``predict``. What it takes from global generators comes from a state of its own.

    Args:
        player: Who acts.
        seed: Of the random numbers.
        environments: How many.
        deterministic: Whether to take the most probable actions.
    """

    def __init__(self, player: Player, seed: int, environments: int, deterministic: bool) -> None:
        self.player, self.deterministic = player, deterministic
        policy = policy_of(player)
        self.device = torch.device("cpu") if policy is None else policy.device
        self.hidden: tuple[NDArray[Any], ...] | None = None
        self.starts: NDArray[np.bool_] = np.ones(environments, dtype=bool)
        self.space = getattr(player, "action_space", None)  # DQN explores with this one's generator
        if not deterministic:
            with self._apart():
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)
                if self.space is not None:
                    self.space.seed(seed)
                self.own = self._states()

    def _states(self) -> tuple[Any, Any]:
        space = None if self.space is None else self.space.np_random.bit_generator.state
        return random_state(self.device), space

    def _restore(self, states: tuple[Any, Any]) -> None:
        restore_random_state(states[0], self.device)
        if self.space is not None:
            self.space.np_random.bit_generator.state = states[1]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        before = self._states()
        try:
            yield
        finally:
            self._restore(before)

    def act(self, observations: Any) -> NDArray[Any]:  # noqa: ANN401  # an array, or a dict of them
        """The actions ``(E, ...)`` for the observations ``(E, ...)``."""
        if self.deterministic:
            actions, self.hidden = self.player.predict(observations, self.hidden, self.starts, True)
            return actions
        with self._apart():
            self._restore(self.own)
            actions, self.hidden = self.player.predict(observations, self.hidden, self.starts, False)
            self.own = self._states()
        return actions


class _Sampling:
    """Draws the actions of each environment with a generator of its own.

    So the scores of an environment do not depend on which others are played beside it, in this process or another.

    Args:
        policy: Its actions are one out of several.
        seed: Of the first environment's random numbers; each next one has the next number.
        environments: How many.
    """

    def __init__(self, policy: ActorCriticPolicy, seed: int, environments: int) -> None:
        self.policy = policy
        self.generators = [np.random.default_rng(seed + number) for number in range(environments)]
        self.starts: NDArray[np.bool_] = np.ones(environments, dtype=bool)

    def act(self, observations: Any) -> NDArray[Any]:  # noqa: ANN401  # an array, or a dict of them
        """The actions ``(E,)`` for the observations ``(E, ...)``."""
        with torch.no_grad():
            distribution = self.policy.get_distribution(self.policy.obs_to_tensor(observations)[0]).distribution
            probabilities = distribution.probs.cpu().double().numpy()  # type: ignore[union-attr]  # of one kind only
        cumulative = probabilities.cumsum(1)
        uniform = np.array([generator.random() for generator in self.generators])[:, None] * cumulative[:, -1:]
        return (cumulative <= uniform).sum(1)  # type: ignore[no-any-return]  # untyped in numpy


def _actor(player: Player, seed: int, environments: int, deterministic: bool) -> _Predicting | _Sampling:
    policy = policy_of(player)
    if (
        not deterministic
        and isinstance(policy, ActorCriticPolicy)
        and isinstance(policy.action_dist, CategoricalDistribution)
        and type(policy)._predict is ActorCriticPolicy._predict  # recurrent policies have another
    ):
        return _Sampling(policy, seed, environments)
    return _Predicting(player, seed, environments, deterministic)


class Step(NamedTuple):
    """One step of all environments.

    Attributes:
        observations: What was seen before it, ``(E, ...)``, or a dict of such arrays.
        actions: ``(E, ...)``.
        rewards: float32 ``(E,)``, as the environments give them.
        dones: bool ``(E,)``, whether an episode or a life ended.
        over: bool ``(E,)``, whether the game is over.
        infos: One for each environment.
    """

    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    over: NDArray[np.bool_]
    infos: list[dict[str, Any]]


def play(
    player: Player, env: VecEnv, *, deterministic: bool, seed: int, before: Callable[[], None] | None = None
) -> Iterator[Step]:
    """Plays on and on. Nothing is taken from the global random number generators.

    Args:
        player: A policy or an algorithm. It is not put into evaluation mode here (`evaluation_mode`).
        env: It is seeded and reset: environment i has the seed ``seed + i``.
        deterministic: Whether to take the most probable actions, not drawn ones.
        seed: Of the environments, and of drawn actions. Those of an actor-critic policy with a choice of actions
            depend, for environment i, on ``seed + i`` and the observations only.
        before: Called before each step.

    Yields:
        The steps, without an end.
    """
    # As evaluate_policy finds out: without any monitor, the first end is the end.
    monitored = is_vecenv_wrapped(env, VecMonitor) or any(env.env_is_wrapped(Monitor))
    actor = _actor(player, seed, env.num_envs, deterministic)
    env.seed(seed)
    observations: Any = env.reset()
    while True:
        actions = actor.act(observations)
        if before is not None:
            before()
        following, rewards, dones, infos = env.step(actions)
        over = np.array([bool(d) and ("episode" in i or not monitored) for d, i in zip(dones, infos, strict=True)])
        actor.starts = dones
        yield Step(observations, actions, rewards, dones, over, infos)
        observations = following

"""Collect rollouts: a policy samples actions, environments step, and the results are stored for an update.

This does what Stable-Baselines3's ``collect_rollouts`` does, with less work per step: images stay uint8 in memory that
every rollout reuses, values of truncated states and advantages are computed once for the whole rollout, and results are
stored while the environments step.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor

from rl.learning.actions import predict_values, sample_actions
from rl.learning.rollouts import FinishedGames, Rollout, compute_advantages
from rl.observations import Observations, empty_observations, map_parts, stack_observations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import VecEnv

    from rl.learning.timings import Timings


class Collector:
    """Collect one rollout after the other. Each rollout overwrites the tensors of the one before.

    Args:
        env: N environments. Observations are uint8 images, channels first, or Dicts with such images.
        steps: T, the length of a rollout.
        gamma: Discount factor.
        gae_lambda: As in `rl.learning.rollouts.compute_advantages`.
        device: Device of the policy.
    """

    def __init__(self, env: VecEnv, steps: int, *, gamma: float, gae_lambda: float, device: torch.device) -> None:
        self.env = env
        self.steps = steps
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.device = device
        shape, space = (steps, env.num_envs), env.action_space
        self.observations = empty_observations(shape, env.observation_space, device)
        discrete = isinstance(space, spaces.Discrete)
        action_shape = () if discrete else (get_action_dim(space),)
        self.actions = torch.zeros(
            *shape, *action_shape, dtype=torch.int64 if discrete else torch.float32, device=device
        )
        self.values, self.log_probs = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        # Transfers from pinned memory to a GPU run while the CPU works on. Fetching the actions waits for them.
        pinned = device.type == "cuda"
        self._staged = map_parts(
            lambda part: torch.zeros(part.shape[1:], dtype=part.dtype, pin_memory=pinned), self.observations
        )
        self._rewards = np.zeros(shape, np.float32)
        self._starts = np.zeros(shape, bool)
        self._last: Any = None  # the latest observations, an array or a dict of them
        self._last_starts = np.ones(env.num_envs, bool)

    def collect(self, policy: ActorCriticPolicy, noise: Tensor | None, timings: Timings) -> Rollout:
        """Collect T more steps of each environment; the first rollout starts with new episodes.

        Args:
            policy: The policy, in evaluation mode.
            noise: `rl.learning.actions.action_noise` of these environments, ``(T, N, num_actions)``; None for
                all other actions.
            timings: Timings to which the time is added.

        Returns:
            The rollout of these N environments; its advantages and values are on the CPU.

        Raises:
            BrokenEnvironment: An environment failed.
        """
        if self._last is None:
            self._last = self.env.reset()
        games = FinishedGames([], [], [])
        truncated: list[tuple[int, int, Any]] = []
        if noise is not None:
            noise = noise.to(self.device)
        with torch.no_grad(), _cached_autocast(self.device.type):
            for step in range(self.steps):
                dones, infos = self._step(step, policy, None if noise is None else noise[step], timings)
                for number in np.flatnonzero(dones).tolist():
                    info = infos[number]
                    if "episode" in info:
                        games.scores.append(float(info["episode"]["r"]))
                        games.lengths.append(int(info["episode"]["l"]))
                        if "is_success" in info:
                            games.successes.append(float(info["is_success"]))
                    if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                        truncated.append((step, number, info["terminal_observation"]))
            with timings.measure("acting"):
                advantages = self._advantages(policy, truncated)
                values = self.values.cpu()
        return Rollout(self.observations, self.actions, self.log_probs, advantages, values, first=0, games=games)

    def _step(
        self, step: int, policy: ActorCriticPolicy, noise: Tensor | None, timings: Timings
    ) -> tuple[NDArray[np.bool_], list[dict[str, Any]]]:
        """Take one step in each environment; return the mask of ended episodes or lives, and the infos."""
        started = time.perf_counter()
        sampled = sample_actions(policy, self._to_device(step), noise)
        space = self.env.action_space
        actions = sampled[0].cpu().numpy().reshape(-1, *(space.shape or ()))
        if isinstance(space, spaces.Box):  # a Gaussian has no bounds
            actions = np.clip(actions, space.low, space.high)
        middle = time.perf_counter()
        self.env.step_async(actions)
        self.actions[step], self.values[step], self.log_probs[step] = sampled
        self._starts[step] = self._last_starts
        self._last, rewards, dones, infos = self.env.step_wait()
        self._last_starts = dones
        self._rewards[step] = rewards
        timings.acting += middle - started
        timings.environment += time.perf_counter() - middle
        return dones, infos

    def _to_device(self, step: int) -> Observations:
        """Store the latest observations as those of a step; return them on the policy's device."""
        target = map_parts(lambda stored: stored[step], self.observations)
        if self.device.type == "cpu":
            map_parts(lambda part, last: part.copy_(torch.from_numpy(last)), target, self._last)
        else:
            map_parts(lambda staged, last: np.copyto(staged.numpy(), last), self._staged, self._last)
            map_parts(lambda part, staged: part.copy_(staged, non_blocking=True), target, self._staged)
        return target

    def _advantages(self, policy: ActorCriticPolicy, truncated: list[tuple[int, int, Any]]) -> Tensor:
        """Compute advantages ``(T, N)``; truncated episodes continue with the value of their last state."""
        if truncated:
            steps, numbers, observations = zip(*truncated, strict=True)
            values = predict_values(policy, obs_as_tensor(stack_observations(observations), self.device))
            self._rewards[list(steps), list(numbers)] += self.gamma * values.cpu().numpy()
        last = predict_values(policy, obs_as_tensor(self._last, self.device)).cpu().numpy()
        estimates = compute_advantages(
            self._rewards,
            self.values.cpu().numpy(),
            self._starts,
            last,
            self._last_starts,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )
        return torch.from_numpy(estimates)


@contextmanager
def _cached_autocast(device_type: str) -> Iterator[None]:
    """Convert each weight to half precision once for a whole rollout; Lightning's autocast does so in every step."""
    dtype, is_enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)
    with torch.autocast(device_type, dtype, enabled=is_enabled, cache_enabled=True):
        try:
            yield
        finally:
            torch.clear_autocast_cache()  # an update changes the weights

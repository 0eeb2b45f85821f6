"""Collect rollouts: a policy samples actions, environments step, and the results are stored for an update.

This does what Stable-Baselines3's ``collect_rollouts`` does, with less work per step: observations stay uint8 in memory
that every rollout reuses, values of truncated states and advantages are computed once for the whole rollout, and
results are stored while the environments step.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor

from rl.learning.actions import predict_values, sample_actions
from rl.learning.advantages import Rollout, compute_advantages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import VecEnv

    from rl.learning.timings import Timings


class Collector:
    """Collect one rollout after the other. Each rollout overwrites the tensors of the one before.

    Args:
        env: N environments. Observations are uint8 images, channels first.
        steps: T, the length of a rollout.
        gamma: Discount factor.
        gae_lambda: As in `rl.learning.advantages.compute_advantages`.
        device: Device of the policy.

    Attributes:
        scores: Unclipped scores of the games that ended in the latest rollout.
        lengths: Lengths of these games, in steps.
        successes: Whether these games succeeded, for those whose environment reports ``is_success``.
    """

    def __init__(self, env: VecEnv, steps: int, *, gamma: float, gae_lambda: float, device: torch.device) -> None:
        self.env = env
        self.steps = steps
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.device = device
        shape, space = (steps, env.num_envs), env.action_space
        image = env.observation_space.shape
        assert image is not None
        on_device: dict[str, Any] = {"device": device}
        # Channels last in memory, in the usual order of axes: on a CPU, gradients of a first convolution with few
        # channels then take a third of the time.
        channels, height, width = image
        stored = torch.zeros(*shape, height, width, channels, dtype=torch.uint8, **on_device)
        self.observations = stored.permute(0, 1, 4, 2, 3)
        discrete = isinstance(space, spaces.Discrete)
        action_shape = () if discrete else (get_action_dim(space),)
        self.actions = torch.zeros(*shape, *action_shape, dtype=torch.int64 if discrete else torch.float32, **on_device)
        self.values, self.log_probs = torch.zeros(shape, **on_device), torch.zeros(shape, **on_device)
        # Transfers from pinned memory to a GPU run while the CPU works on. Fetching the actions waits for them.
        self._staged = torch.zeros(env.num_envs, *image, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._rewards = np.zeros(shape, np.float32)
        self._starts = np.zeros(shape, bool)
        self.scores: list[float] = []
        self.lengths: list[int] = []
        self.successes: list[float] = []
        self._last: NDArray[np.uint8] | None = None
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
            self._last = cast("NDArray[np.uint8]", self.env.reset())
        self.scores, self.lengths, self.successes = [], [], []
        truncated: list[tuple[int, int, NDArray[np.uint8]]] = []
        if noise is not None:
            noise = noise.to(self.device)
        with torch.no_grad(), _cached_autocast(self.device.type):
            for step in range(self.steps):
                dones, infos = self._step(step, policy, None if noise is None else noise[step], timings)
                for number in np.flatnonzero(dones).tolist():
                    info = infos[number]
                    if "episode" in info:
                        self.scores.append(float(info["episode"]["r"]))
                        self.lengths.append(int(info["episode"]["l"]))
                        if "is_success" in info:
                            self.successes.append(float(info["is_success"]))
                    if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                        truncated.append((step, number, info["terminal_observation"]))
            started = time.perf_counter()
            advantages = self._advantages(policy, truncated)
            values = self.values.cpu()
            timings.acting += time.perf_counter() - started
        return Rollout(self.observations, self.actions, self.log_probs, advantages, values, first=0)

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
        observations, rewards, dones, infos = self.env.step_wait()
        self._last = cast("NDArray[np.uint8]", observations)
        self._last_starts = dones
        self._rewards[step] = rewards
        timings.acting += middle - started
        timings.environment += time.perf_counter() - middle
        return dones, infos

    def _to_device(self, step: int) -> Tensor:
        """Store the latest observations as those of a step; return them on the policy's device, ``(N, C, H, W)``."""
        target = self.observations[step]
        assert self._last is not None
        if self.device.type == "cpu":
            target.copy_(torch.from_numpy(self._last))
        else:
            np.copyto(self._staged.numpy(), self._last)
            target.copy_(self._staged, non_blocking=True)
        return target

    def _advantages(self, policy: ActorCriticPolicy, truncated: list[tuple[int, int, NDArray[np.uint8]]]) -> Tensor:
        """Compute advantages ``(T, N)``; truncated episodes continue with the value of their last state."""
        if truncated:
            steps, numbers, images = zip(*truncated, strict=True)
            values = predict_values(policy, torch.as_tensor(np.stack(images)).to(self.device))
            self._rewards[list(steps), list(numbers)] += self.gamma * values.cpu().numpy()
        assert self._last is not None
        last = predict_values(policy, torch.as_tensor(self._last).to(self.device)).cpu().numpy()
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
        yield
    torch.clear_autocast_cache()  # an update changes the weights

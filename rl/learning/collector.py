"""Playing to learn: a policy draws actions, environments step, and what happened is kept for an update.

This is what Stable-Baselines3's ``collect_rollouts`` does, in a loop of its own: observations go as they are, uint8,
into memory that is used again for each rollout, whatever is known only later (values of cut-off states, advantages) is
computed for the whole rollout at once, and what is stored is stored while the environments step.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from coordconv_apps.utils.errors import UserError
from rl.envs.checks import BrokenEnvironment
from rl.learning.actions import act
from rl.learning.advantages import Rollout, advantages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import VecEnv


class BrokenTraining(UserError):
    """A training cannot go on: an environment crashed or gave a reward that is no number, or the policy did."""


DIVERGED = "the policy predicts values that are no finite numbers: model.lr must be smaller"


@contextmanager
def diverging() -> Iterator[None]:
    """Raises `BrokenTraining` in place of what torch's distributions say of numbers that are not finite, at length."""
    try:
        yield
    except ValueError as error:
        if "found invalid values" not in str(error):
            raise
        raise BrokenTraining(DIVERGED) from error


class Seconds:
    """Where the time goes.

    Attributes:
        acting: Seconds in which the policy chose actions.
        environment: Seconds of waiting for environments.
        updating: Seconds in which the policy learned.
    """

    def __init__(self) -> None:
        self.acting = self.environment = self.updating = 0.0


class Played(NamedTuple):
    """What one process has played, before it is told of the others.

    Attributes:
        observations: As of `Rollout`.
        actions: Likewise.
        log_probs: Likewise.
        advantages: float32 ``(T, N)`` on the CPU, of its own environments.
        values: float32 ``(T, N)`` on the CPU.
        scores: Of the games that came to their end, not clipped.
        lengths: Of these games, in steps.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    scores: list[float]
    lengths: list[int]


class Collector:
    """Plays rollouts in environments, one after the other.

    The tensors of a rollout are those of the one before, with new values.

    Args:
        env: The environments: N of them. Observations are uint8 images, channels first.
        steps: T, of a rollout.
        gamma: Discount of a step.
        gae_lambda: Of `rl.learning.advantages.advantages`.
        device: Where the policy is.
    """

    def __init__(
        self,
        env: VecEnv,
        steps: int,
        *,
        gamma: float,
        gae_lambda: float,
        device: torch.device,
    ) -> None:
        self.env = env
        self.steps = steps
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.device = device
        shape, space = (steps, env.num_envs), env.action_space
        image = env.observation_space.shape
        assert image is not None
        on_device: dict[str, Any] = {"device": device}
        # The channels of a pixel lie together, though the axes are in the usual order: on a CPU, gradients of a first
        # convolution of few channels take a third of the time so.
        channels, height, width = image
        stored = torch.zeros(*shape, height, width, channels, dtype=torch.uint8, **on_device)
        self.observations = stored.permute(0, 1, 4, 2, 3)
        discrete = isinstance(space, spaces.Discrete)
        action_shape = () if discrete else space.shape or ()
        self.actions = torch.zeros(*shape, *action_shape, dtype=torch.int64 if discrete else torch.float32, **on_device)
        self.values, self.log_probs = torch.zeros(shape, **on_device), torch.zeros(shape, **on_device)
        # Of pinned memory, transfers to a GPU need not wait for each other.
        self._staged = torch.zeros(env.num_envs, *image, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._rewards = np.zeros(shape, np.float32)
        self._starts = np.zeros(shape, bool)
        self._last: NDArray[np.uint8] | None = None
        self._last_starts = np.ones(env.num_envs, bool)

    def collect(self, policy: ActorCriticPolicy, noise: Tensor | None, seconds: Seconds) -> Played:
        """Plays the next T steps of each environment; the first rollout begins with new episodes.

        Args:
            policy: Who plays, in evaluation mode.
            noise: `action_noise` of these environments, ``(T, N, actions)``; None: torch's global generator.
            seconds: Is told of the time.

        Raises:
            BrokenTraining: An environment failed, or gave a reward that is not finite.
        """
        if self._last is None:
            self._last = self._guarded(self.env.reset)
        scores: list[float] = []
        lengths: list[int] = []
        cut: list[tuple[int, int, NDArray[np.uint8]]] = []
        if noise is not None:
            noise = noise.to(self.device)
        with torch.no_grad():
            for step in range(self.steps):
                dones, infos = self._step(step, policy, None if noise is None else noise[step], seconds)
                for number in np.flatnonzero(dones).tolist():
                    info = infos[number]
                    if "episode" in info:
                        scores.append(float(info["episode"]["r"]))
                        lengths.append(int(info["episode"]["l"]))
                    if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                        cut.append((step, number, info["terminal_observation"]))
            began = time.perf_counter()
            own = self._advantages(policy, cut)
            values = self.values.cpu()
            seconds.acting += time.perf_counter() - began
        return Played(self.observations, self.actions, self.log_probs, own, values, scores, lengths)

    def _step(
        self, step: int, policy: ActorCriticPolicy, noise: Tensor | None, seconds: Seconds
    ) -> tuple[NDArray[np.bool_], list[dict[str, Any]]]:
        """One step of each environment; which episodes or lives ended, and what the environments tell."""
        began = time.perf_counter()
        acted = act(policy, self._show(step), noise)
        actions = acted.actions.cpu().numpy()
        space = self.env.action_space
        if isinstance(space, spaces.Box):  # what is drawn has no bounds
            actions = np.clip(actions, space.low, space.high)
        middle = time.perf_counter()
        self._guarded(lambda: self.env.step_async(actions))
        self.actions[step], self.values[step], self.log_probs[step] = acted
        self._starts[step] = self._last_starts
        self._last, rewards, dones, infos = self._guarded(self.env.step_wait)
        self._last_starts = dones
        self._rewards[step] = rewards
        seconds.acting += middle - began
        seconds.environment += time.perf_counter() - middle
        return dones, infos

    def _show(self, step: int) -> Tensor:
        """The observations of a step, ``(N, C, H, W)``, where the policy is."""
        target = self.observations[step]
        assert self._last is not None
        if self.device.type == "cpu":
            target.copy_(torch.from_numpy(self._last))
        else:
            np.copyto(self._staged.numpy(), self._last)
            target.copy_(self._staged, non_blocking=True)
        return target

    def _advantages(self, policy: ActorCriticPolicy, cut: list[tuple[int, int, NDArray[np.uint8]]]) -> Tensor:
        """Advantages ``(T, N)``; an episode that a time limit has cut off goes on with the value of its last state."""
        if cut:
            steps, numbers, images = zip(*cut, strict=True)
            values = policy.predict_values(torch.as_tensor(np.stack(images)).to(self.device))
            self._rewards[list(steps), list(numbers)] += self.gamma * values[:, 0].float().cpu().numpy()
        assert self._last is not None
        last = policy.predict_values(torch.as_tensor(self._last).to(self.device))[:, 0].float().cpu().numpy()
        estimates = advantages(
            self._rewards,
            self.values.cpu().numpy(),
            self._starts,
            last,
            self._last_starts,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )
        return torch.from_numpy(estimates)

    def _guarded(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401  # whatever the environment's methods return
        try:
            return call()
        except BrokenEnvironment as error:
            raise BrokenTraining(str(error)) from error


def together(played: Played, gathered: Tensor, first: int) -> Rollout:
    """The rollout of one process, which knows what it needs of the others.

    Args:
        played: What this process has played.
        gathered: Advantages and values of all processes, ``(2, T, E)``, on the policy's device.
        first: The number of this process's first environment among the E.
    """
    return Rollout(played.observations, played.actions, played.log_probs, gathered[0], gathered[1], first)

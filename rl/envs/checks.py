"""Report which environment failed, and at which step."""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from coordconv_apps.utils.errors import UserError, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import SubprocVecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class BrokenEnvironment(UserError):
    """An environment raised an error, its process ended, or it returned a NaN or infinite value."""


class GuardedVecEnv(VecEnvWrapper):
    """Raise `BrokenEnvironment` where an environment fails or returns a NaN or infinite reward or observation.

    Stable-Baselines3's ``VecCheckNan`` reports neither the environment nor the step, and converts every uint8 image to
    floating point for its check; this wrapper checks rewards and floating-point observations only.

    Errors that `step_async` raises for wrong actions pass through. After a failure, `close` kills the worker processes,
    because `SubprocVecEnv.close` would wait for their replies forever.

    Args:
        venv: The environments.
        game: Name of the game, for messages.
        first: Index of the first environment among those of all processes, for messages.
    """

    def __init__(self, venv: VecEnv, game: str, first: int = 0) -> None:
        super().__init__(venv)
        self.game, self.first = game, first
        self.steps, self.broken = 0, False

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        try:
            observations = self.venv.reset()
        except Exception as error:
            self._fail_with(error)
        self._check("observation", observations)
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step."""
        self.steps += 1
        try:
            self.venv.step_async(actions)
        except OSError as error:  # a broken pipe
            self._fail_with(error)

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        try:
            observations, rewards, dones, infos = self.venv.step_wait()
        except Exception as error:
            self._fail_with(error)
        self._check("reward", rewards)
        self._check("observation", observations)
        return observations, rewards, dones, infos

    def _check(self, name: str, values: VecEnvObs | NDArray[Any]) -> None:
        index = _first_non_finite(values)
        if index is not None:
            self._fail(f"its {name} is NaN or infinite", index)

    def _fail_with(self, error: Exception) -> NoReturn:
        words, name = one_line(error), type(error).__name__
        self._fail(words if words == name else f"{name}: {words}", _ended_process(self.unwrapped), error)

    def _fail(self, cause: str, index: int | None, error: Exception | None = None) -> NoReturn:
        """Raise `BrokenEnvironment`; without an index the message names all environments."""
        self.broken = True
        if index is None and self.num_envs > 1:
            which = f"one of the environments {self.first} to {self.first + self.num_envs - 1}"
        else:
            which = f"environment {self.first + (index or 0)}"
        raise BrokenEnvironment(f"model.game={self.game}: {which} failed in step {self.steps}: {cause}") from error

    def close(self) -> None:
        """Close the environments."""
        processes = getattr(self.unwrapped, "processes", ())
        if not (self.broken and processes):
            super().close()
            return
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        cast("SubprocVecEnv", self.unwrapped).closed = True


def _ended_process(venv: VecEnv) -> int | None:
    """Return the index of the first worker process that has ended; None if there is none."""
    processes = getattr(venv, "processes", ())
    if not processes:
        return None
    ended = wait([process.sentinel for process in processes], timeout=1)
    return next((index for index, process in enumerate(processes) if process.sentinel in ended), None)


def _first_non_finite(values: Any) -> int | None:  # noqa: ANN401  # observations of any kind
    """Return the index of the first environment with a NaN or infinite value; None if all are finite."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple):
        return next((index for index in map(_first_non_finite, values) if index is not None), None)
    if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
        return None
    return int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[0])

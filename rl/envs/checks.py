"""Report which environment failed, and at which step."""

from __future__ import annotations

from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from coordconv_apps.utils.errors import UserError, one_line
from rl.observations import stack_observations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.process import BaseProcess

    import gymnasium
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import SubprocVecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


class BrokenEnvironment(UserError):
    """An environment raised an error, its process ended, or it returned a NaN or infinite value."""


class GuardedVecEnv(VecEnvWrapper):
    """Raise `BrokenEnvironment` where an environment fails or returns a NaN or infinite reward or observation.

    Stable-Baselines3's ``VecCheckNan`` reports neither the environment nor the step, and converts every uint8 image to
    floating point for its check; this wrapper checks rewards and floating-point observations only.

    Errors that `step_async` raises for wrong actions pass through. After a failure, `close` kills the worker processes,
    because `SubprocVecEnv.close` would wait for their replies forever, or fail where one has ended.

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
        with self._guard():
            observations = self.venv.reset()
        self._check("observation", observations)
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step."""
        self.steps += 1
        with self._guard(OSError):  # a broken pipe
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        with self._guard():
            observations, rewards, dones, infos = self.venv.step_wait()
        self._check("reward", rewards)
        self._check("observation", observations)
        for index in np.flatnonzero(dones).tolist():
            if "terminal_observation" in infos[index]:
                last = stack_observations([infos[index]["terminal_observation"]])
                self._check("last observation", last, index)
        return observations, rewards, dones, infos

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return which environments have a wrapper. Playing asks this before the first reset."""
        with self._guard():
            return self.venv.env_is_wrapped(wrapper_class, indices)

    @contextmanager
    def _guard(self, kind: type[Exception] = Exception) -> Iterator[None]:
        """Raise `BrokenEnvironment` in place of an error of the environments."""
        try:
            yield
        except kind as error:
            words, name = one_line(error), type(error).__name__
            self._fail(words if words == name else f"{name}: {words}", self._ended_process(), error)

    def _ended_process(self) -> int | None:
        """Return the index of the first worker process that has ended; None if there is none."""
        sentinels = [process.sentinel for process in self._processes]
        ended = wait(sentinels, timeout=1) if sentinels else []
        return next((index for index, sentinel in enumerate(sentinels) if sentinel in ended), None)

    def _check(self, name: str, values: VecEnvObs, first: int = 0) -> None:
        """Check values ``(N, ...)``, or a dict of them, of the environments from ``first`` on."""
        for part in values.values() if isinstance(values, dict) else [values]:
            assert isinstance(part, np.ndarray)
            if np.issubdtype(part.dtype, np.floating) and not np.isfinite(part).all():
                index = int(np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(1))[0])
                self._fail(f"its {name} is NaN or infinite", first + index)

    def _fail(self, cause: str, index: int | None, error: Exception | None = None) -> NoReturn:
        """Raise `BrokenEnvironment`; without an index the message names all environments."""
        self.broken = True
        if index is None and self.num_envs > 1:
            which = f"one of the environments {self.first} to {self.first + self.num_envs - 1}"
        else:
            which = f"environment {self.first + (index or 0)}"
        raise BrokenEnvironment(f"model.game={self.game}: {which} failed in step {self.steps}: {cause}") from error

    @property
    def _processes(self) -> Sequence[BaseProcess]:
        return getattr(self.unwrapped, "processes", ())

    def close(self) -> None:
        """Close the environments."""
        processes = self._processes
        if not processes or not (self.broken or any(not process.is_alive() for process in processes)):
            super().close()
            return
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        cast("SubprocVecEnv", self.unwrapped).closed = True

"""A guard around environments: it says which of them broke, and when."""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import SubprocVecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class BrokenEnvironment(RuntimeError):
    """An environment cannot go on.

    Args:
        game: What is played.
        index: Which environment, or None if that is not known.
        step: The step since the guard was put up in which it broke, counted from 1; 0 in a reset before any step.
        cause: What went wrong, in one line.
    """

    def __init__(self, game: str, index: int | None, step: int, cause: str) -> None:
        super().__init__(game, index, step, cause)
        self.game, self.index, self.step, self.cause = game, index, step, cause

    def __str__(self) -> str:
        which = "one of its environments" if self.index is None else f"environment {self.index}"
        return f"{self.game}: {which} broke in step {self.step}: {self.cause}"


def _where(venv: VecEnv, traceback: TracebackType | None) -> int | None:
    """The environment that raised an error, where the loop over the environments or their processes can tell."""
    found = None
    while traceback is not None:
        names = traceback.tb_frame.f_locals
        # `DummyVecEnv` and gymnasium's `SyncVectorEnv` count their environments under these names.
        number = names.get("env_idx", names.get("i"))
        if isinstance(number, int) and hasattr(names.get("self"), "envs"):
            found = number
        traceback = traceback.tb_next
    processes = getattr(venv, "processes", ())
    if found is None and processes:
        ended = wait([process.sentinel for process in processes], timeout=1)
        found = next((index for index, process in enumerate(processes) if process.sentinel in ended), None)
    return found


def _not_finite(values: Any) -> int | None:  # noqa: ANN401  # observations of any kind
    """The first environment with a value that is no finite number."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple):
        return next((index for index in map(_not_finite, values) if index is not None), None)
    if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
        return None
    return int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))[0])


class GuardedVecEnv(VecEnvWrapper):
    """Raises `BrokenEnvironment` where an environment raises an error, or gives a reward or observation that is NaN.

    Infinite values count as NaN does, in rewards and in observations of floating point. Mistakes of the caller
    (`ValueError` from ``step_async``) pass through as they are. Processes of environments that broke are ended by
    `close`, which else would wait for answers that do not come.

    Args:
        venv: The environments.
        game: Their name in messages.
    """

    def __init__(self, venv: VecEnv, game: str) -> None:
        super().__init__(venv)
        self.game, self.steps, self.broken = game, 0, False

    def _try(self, call: Callable[[], Any], *mistakes: type[Exception]) -> Any:  # noqa: ANN401  # whatever it returns
        """Calls the environments. Mistakes of the caller pass through."""
        try:
            return call()
        except mistakes:
            raise
        except Exception as error:
            words = " ".join(str(error).split())
            cause = f"{type(error).__name__}: {words}" if words else type(error).__name__
            where = _where(self.unwrapped, error.__traceback__)
            self.broken = True
            raise BrokenEnvironment(self.game, where, self.steps, cause) from error

    def _check(self, what: str, values: VecEnvObs | NDArray[Any]) -> None:
        index = _not_finite(values)
        if index is not None:
            raise BrokenEnvironment(self.game, index, self.steps, f"its {what} is not finite")

    def reset(self) -> VecEnvObs:
        """Resets the environments.

        Raises:
            BrokenEnvironment: If one of them fails.
        """
        observations: VecEnvObs = self._try(self.venv.reset)
        self._check("observation", observations)
        self.reset_infos = self.venv.reset_infos
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Begins a step.

        Args:
            actions: One for each environment.

        Raises:
            BrokenEnvironment: If the process of one of the environments is gone.
        """
        self.steps += 1
        self._try(lambda: self.venv.step_async(actions), ValueError, RuntimeError)

    def step_wait(self) -> VecEnvStepReturn:
        """Waits for a step.

        Raises:
            BrokenEnvironment: If one of the environments fails.
        """
        observations, rewards, dones, infos = self._try(self.venv.step_wait)
        self._check("reward", rewards)
        self._check("observation", observations)
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Closes the environments."""
        processes = getattr(self.unwrapped, "processes", ())
        if not (self.broken and processes):
            super().close()
            return
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        cast("SubprocVecEnv", self.unwrapped).closed = True

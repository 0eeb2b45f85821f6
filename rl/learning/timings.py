"""Measure how much time a training spends on acting, on environments and on updates."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stable_baselines3.common.vec_env import VecEnvWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


@dataclass
class Timings:
    """Seconds spent so far: choosing actions, waiting for environments, and training the policy."""

    acting: float = 0.0
    environment: float = 0.0
    updating: float = 0.0

    @contextmanager
    def measure(self, part: Literal["acting", "environment", "updating"]) -> Iterator[None]:
        """Add the time that the body of the ``with`` statement takes.

        >>> timings = Timings()
        >>> with timings.measure("acting"):
        ...     pass
        >>> timings.acting > 0, timings.updating
        (True, 0.0)
        """
        started = time.perf_counter()
        yield
        setattr(self, part, getattr(self, part) + time.perf_counter() - started)


class TimedVecEnv(VecEnvWrapper):
    """Add the time that is spent waiting for environments to the timings."""

    def __init__(self, venv: VecEnv, timings: Timings) -> None:
        super().__init__(venv)
        self.timings = timings

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        with self.timings.measure("environment"):
            return self.venv.reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step."""
        with self.timings.measure("environment"):
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        with self.timings.measure("environment"):
            return self.venv.step_wait()

"""Which environment broke, and when."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from rl.envs.adapter import VectorEnvAdapter
from rl.envs.atari import AtariVecEnv
from rl.envs.checks import BrokenEnvironment, GuardedVecEnv
from tests.rl.reference_envs import Walk, play_both

if TYPE_CHECKING:
    from collections.abc import Callable

    from stable_baselines3.common.vec_env import VecEnv


def stock(makers: list[Callable[[], gymnasium.Env[Any, Any]]]) -> VecEnv:
    return DummyVecEnv(makers)


def adapted(makers: list[Callable[[], gymnasium.Env[Any, Any]]]) -> VecEnv:
    return VectorEnvAdapter(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))


KINDS = pytest.mark.parametrize("kind", [stock, adapted])


def play(venv: VecEnv) -> BrokenEnvironment:
    guarded = GuardedVecEnv(venv, "walk")
    guarded.reset()
    try:
        for _ in range(9):
            guarded.step(np.zeros((guarded.num_envs, 2), np.int64))
    except BrokenEnvironment as error:
        return error
    raise AssertionError("nothing has broken")


@KINDS
def test_an_environment_that_raises_is_reported_with_its_number_and_step(kind: Callable[[list[Any]], VecEnv]) -> None:
    error = play(kind([Walk, lambda: Walk(fails_at=4), Walk]))
    assert (
        str(error)
        == "model.game=walk: one of the environments 0 to 2 failed in step 4: RuntimeError: the floor gave way"
    )
    assert isinstance(error.__cause__, RuntimeError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@KINDS
def test_a_reward_that_is_nan_is_reported_with_its_environment_and_step(kind: Callable[[list[Any]], VecEnv]) -> None:
    error = play(kind([Walk, Walk, lambda: Walk(nan_at=2)]))
    assert str(error) == "model.game=walk: environment 2 failed in step 2: its reward is NaN or infinite"


def test_an_observation_that_is_infinite_is_reported_wherever_it_is() -> None:
    class Off(Walk):
        def observe(self) -> dict[str, Any]:
            observation = super().observe()
            observation["place"][1] += np.inf if self.steps == 1 else 0
            return observation

    # `Walk` ends after two steps at the earliest.
    assert (
        str(play(stock([Walk, Off])))
        == "model.game=walk: environment 1 failed in step 1: its observation is NaN or infinite"
    )


@KINDS
def test_the_last_observation_of_an_episode_is_checked_too(kind: Callable[[list[Any]], VecEnv]) -> None:
    class Off(Walk):
        def step(self, action: Any) -> Any:  # noqa: ANN401  # as in `Walk`
            observation, reward, terminated, truncated, info = super().step(action)
            if terminated or truncated:
                observation["place"][1] = np.nan
            return observation, reward, terminated, truncated, info

    message = r"model\.game=walk: environment 1 failed in step \d: its last observation is NaN or infinite"
    assert re.fullmatch(message, str(play(kind([Walk, Off]))))


def test_a_reset_that_fails_is_step_0() -> None:
    class Shut(Walk):
        def reset(self, **_: Any) -> Any:  # noqa: ANN401  # never returns
            raise OSError

    with pytest.raises(BrokenEnvironment, match=r"one of the environments 0 to 1 failed in step 0: OSError$"):
        GuardedVecEnv(stock([Walk, Shut]), "walk").reset()


def poles(fails: bool) -> Callable[[], gymnasium.Env[Any, Any]]:
    """Makes environments that need gymnasium only, and end with the process if they fail."""

    def make() -> gymnasium.Env[Any, Any]:
        env = gymnasium.make("CartPole-v1")
        if fails:
            env.step = lambda _: __import__("os")._exit(1)  # type: ignore[assignment,method-assign]  # dies in place of a step
        return env

    return make


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_ends_is_reported_with_its_number_and_the_others_are_ended(number: int) -> None:
    venv = SubprocVecEnv([poles(number == 0), poles(number == 1)], start_method="spawn")
    guarded = GuardedVecEnv(venv, "poles")
    guarded.reset()
    message = rf"^model.game=poles: environment {number} failed in step 1: (EOF|ConnectionReset)Error"
    with pytest.raises(BrokenEnvironment, match=message):
        guarded.step(np.zeros(2, np.int64))
    guarded.close()
    guarded.close()
    assert not any(process.is_alive() for process in venv.processes)


def test_a_process_that_is_killed_between_two_steps_is_reported() -> None:
    venv = SubprocVecEnv([poles(False)], start_method="spawn")
    guarded, unaware = GuardedVecEnv(venv, "poles"), GuardedVecEnv(venv, "poles")
    guarded.reset()
    venv.processes[0].kill()
    venv.processes[0].join()
    unaware.close()  # must not write to the process either
    with pytest.raises(BrokenEnvironment, match=r"^model.game=poles: environment 0 failed in step 0: BrokenPipeError"):
        guarded.env_is_wrapped(Monitor)
    with pytest.raises(BrokenEnvironment, match=r"^model.game=poles: environment 0 failed in step 1: BrokenPipeError"):
        guarded.step(np.zeros(1, np.int64))
    guarded.close()


def test_errors_of_the_caller_pass_through() -> None:
    guarded = GuardedVecEnv(AtariVecEnv("pong", 1), "pong")
    guarded.reset()
    with pytest.raises(ValueError, match=r"^actions=\[9\]: must be 1 integers from 0 to 5$"):
        guarded.step(np.array([9]))
    guarded.close()


def test_environments_that_work_are_left_as_they_are() -> None:
    guarded = GuardedVecEnv(stock([lambda: Monitor(Walk())] * 2), "walk")
    episodes, _ = play_both(guarded, stock([lambda: Monitor(Walk())] * 2), steps=40)
    assert episodes > 0
    assert guarded.steps == 40
    assert guarded.get_attr("speed") == [1, 1]
    assert guarded.env_is_wrapped(Monitor) == [True, True]

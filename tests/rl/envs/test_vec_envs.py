"""What Stable-Baselines3 expects of environments, of every kind of them that is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import A2C
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from rl.envs.adapter import VectorEnvAdapter
from rl.envs.atari import AtariVecEnv
from rl.envs.catch import GRID, CatchVecEnv
from tests.rl.reference_envs import equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stable_baselines3.common.vec_env import VecEnv

STEPS = 12
"""After which every episode but Catch's is cut off; in Atari games, FIRE and the action after it are two of them."""


def atari() -> VecEnv:
    return AtariVecEnv("pong", 2, 0, noop_max=0, max_episode_steps=STEPS)


def native() -> VecEnv:
    settings: dict[str, Any] = {"noop_max": 0, "max_num_frames_per_episode": 4 * STEPS}
    return VectorEnvAdapter(AtariVectorEnv("pong", 2, autoreset_mode=AutoresetMode.SAME_STEP, **settings))


def poles(mode: AutoresetMode) -> VecEnv:
    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.make("CartPole-v1", max_episode_steps=STEPS)

    return VectorEnvAdapter(SyncVectorEnv([make] * 2, copy=False, autoreset_mode=mode))


KINDS: dict[str, tuple[Callable[[], VecEnv], str, int]] = {
    "atari": (atari, "CnnPolicy", 4 * STEPS),
    "catch": (lambda: CatchVecEnv(2, 0, balls=1), "CnnPolicy", GRID - 1),
    "adapted atari": (native, "CnnPolicy", STEPS),
    "adapted, same step": (lambda: poles(AutoresetMode.SAME_STEP), "MlpPolicy", STEPS),
    "adapted, next step": (lambda: poles(AutoresetMode.NEXT_STEP), "MlpPolicy", STEPS),
}
"""How to make them, the policy for them, and the length of an episode that does not end early."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def venv(kind: str) -> Iterator[VecEnv]:
    made = KINDS[kind][0]()
    yield made
    made.close()
    made.close()


def play(venv: VecEnv, steps: int) -> list[Any]:
    venv.action_space.seed(0)
    found: list[Any] = [venv.reset()]
    for _ in range(steps):
        found.append(venv.step(np.array([venv.action_space.sample() for _ in range(venv.num_envs)])))
    return found


def test_every_step_has_what_learners_ask_for(kind: str, venv: VecEnv) -> None:
    first, *steps = play(venv, 40)
    shape, dtype = (2, *(venv.observation_space.shape or ())), venv.observation_space.dtype
    assert (first.shape, first.dtype) == (shape, dtype)
    ends = 0
    for observations, rewards, dones, infos in steps:
        assert (observations.shape, observations.dtype) == (shape, dtype)
        assert (rewards.shape, rewards.dtype) == ((2,), np.float32)
        assert (dones.shape, dones.dtype) == ((2,), np.bool_)
        for done, info in zip(dones, infos, strict=True):
            assert type(info["TimeLimit.truncated"]) is bool
            assert ("terminal_observation" in info) == ("episode" in info) == done  # there are no lives
            if done:
                ends += 1
                assert venv.observation_space.contains(info["terminal_observation"])
                assert {name: type(value) for name, value in info["episode"].items()} == {
                    "r": float,
                    "l": int,
                    "t": float,
                }
                if info["TimeLimit.truncated"]:
                    assert info["episode"]["l"] == KINDS[kind][2]
    assert ends >= 4


def test_what_was_handed_out_is_not_written_to_again(venv: VecEnv) -> None:
    first = venv.reset()
    kept = [np.array(first)]
    given = [first]
    for _ in range(STEPS + 1):
        observations, rewards, dones, _ = venv.step(np.ones(2, np.int64))
        given += [observations, rewards, dones]
        kept += [np.array(observations), rewards.copy(), dones.copy()]
    equal(dict(enumerate(given)), dict(enumerate(kept)))


@pytest.mark.parametrize("seed", [7, 2**32 - 2])
def test_a_seed_serves_the_next_reset_and_gives_the_same_steps_again(venv: VecEnv, seed: int) -> None:
    runs = []
    for _ in range(2):
        assert venv.seed(seed) == [seed, seed + 1]
        runs.append(play(venv, 20))
        assert len(venv.reset_infos) == 2
    (first, *steps), (again, *others) = runs
    equal(first, again)
    for one, other in zip(steps, others, strict=True):
        for part in range(3):  # infos have the time in them
            equal(one[part], other[part])


def test_env_is_wrapped_distinguishes_monitor(venv: VecEnv) -> None:
    assert venv.env_is_wrapped(Monitor) == [True, True]
    assert venv.env_is_wrapped(Monitor, indices=1) == [True]
    assert venv.env_is_wrapped(EpisodicLifeEnv) == [False, False]
    assert not venv.has_attr("no_such_attribute")
    assert len(venv.get_attr("render_mode")) == 2


def test_stable_baselines_learns_and_evaluates_on_them(kind: str, venv: VecEnv) -> None:
    """Warnings are errors here: `evaluate_policy` warns where it would not see whole episodes."""
    _, policy, length = KINDS[kind]
    model = A2C(policy, venv, n_steps=5, seed=0).learn(40)
    assert model.num_timesteps == 40
    assert model.ep_info_buffer is not None
    assert {"r", "l", "t"} == set(model.ep_info_buffer[0])
    _, lengths = evaluate_policy(model, venv, n_eval_episodes=2, return_episode_rewards=True)
    assert isinstance(lengths, list)
    assert len(lengths) == 2
    assert all(0 < found <= length for found in lengths)
    assert lengths == [length] * 2 or policy == "MlpPolicy"  # poles may fall

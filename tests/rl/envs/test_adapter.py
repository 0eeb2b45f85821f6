"""The adapter beside Stable-Baselines3's own `DummyVecEnv` over `Monitor`, and what it refuses."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Discrete, MultiDiscrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics, TransformReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rl.envs.adapter import VectorEnvAdapter
from tests.rl.reference_envs import Recorder, Walk, equal, play_both

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = list(AutoresetMode)


def cart_pole() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("CartPole-v1", max_episode_steps=30)


def processes(mode: AutoresetMode, **options: Any) -> AsyncVectorEnv:  # noqa: ANN401  # of AsyncVectorEnv
    """Two poles in processes that import gymnasium only."""
    return gymnasium.make_vec(
        "CartPole-v1",
        2,
        vectorization_mode="async",
        vector_kwargs={"autoreset_mode": mode, "context": "spawn", **options},
        max_episode_steps=30,
    )  # type: ignore[return-value]  # AsyncVectorEnv, as asked for


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [cart_pole, Walk])
def test_every_step_is_that_of_stable_baselines(
    make: Callable[[], gymnasium.Env[Any, Any]], mode: AutoresetMode
) -> None:
    ours = VectorEnvAdapter(SyncVectorEnv([make] * 3, autoreset_mode=mode))
    stock = DummyVecEnv([lambda: Monitor(make())] * 3)
    assert ours.observation_space == stock.observation_space
    assert ours.action_space == stock.action_space
    episodes, cut_off = play_both(ours, stock, steps=150)
    assert episodes > 10
    assert 0 < cut_off < episodes


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_every_step_of_processes_is_that_of_stable_baselines(mode: AutoresetMode) -> None:
    ours = VectorEnvAdapter(processes(mode))
    try:
        episodes, cut_off = play_both(ours, DummyVecEnv([lambda: Monitor(cart_pole())] * 2), steps=120)
        assert episodes > 3
        assert cut_off > 0
    finally:
        ours.close()


def test_both_modes_of_the_atari_emulators_give_the_same_steps() -> None:
    settings: dict[str, Any] = {"noop_max": 0, "max_num_frames_per_episode": 160, "reward_clipping": False}
    one, other = (
        VectorEnvAdapter(AtariVectorEnv("breakout", 2, autoreset_mode=mode, **settings))
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP)
    )
    episodes, cut_off = play_both(
        one, other, steps=100, leave_out=("env_id", "lives", "frame_number", "episode_frame_number")
    )
    assert episodes == cut_off == 4


def test_scores_from_inside_survive_a_change_of_rewards() -> None:
    inner = SyncVectorEnv([cart_pole] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    ours = VectorEnvAdapter(TransformReward(RecordEpisodeStatistics(inner), lambda reward: 0 * reward))
    found = first_episode(ours)
    assert found["r"] == found["l"] > 0


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_episodes_are_counted_here_where_single_resets_disturb_gymnasiums_count(mode: AutoresetMode) -> None:
    # Environment 1 ends long after environment 0 was reset alone, which sets all of gymnasium's counts to zero.
    def make(end: int) -> Callable[[], gymnasium.Env[Any, Any]]:
        return functools.partial(gymnasium.wrappers.TimeLimit, Walk(), end)

    ours = VectorEnvAdapter(RecordEpisodeStatistics(SyncVectorEnv([make(3), make(5)], autoreset_mode=mode)))
    ours.set_options({"end": 100})
    ours.reset()
    lengths: dict[int, int] = {}
    for _ in range(5):
        _, _, dones, infos = ours.step(np.zeros((2, 2), np.int64))
        for index in np.flatnonzero(dones).tolist():
            lengths.setdefault(index, infos[index]["episode"]["l"])  # the first of each
    assert lengths == {0: 3, 1: 5}


def first_episode(venv: VectorEnvAdapter) -> dict[str, Any]:
    """Steps until an episode ends."""
    venv.reset()
    for _ in range(200):
        for info in venv.step(np.zeros(venv.num_envs, np.int64))[3]:
            if "episode" in info:
                episode: dict[str, Any] = info["episode"]
                return episode
    raise AssertionError("no episode has ended")


def test_options_reach_the_environments_and_must_be_the_same_for_all() -> None:
    ours = VectorEnvAdapter(SyncVectorEnv([Walk] * 2))
    ours.set_options({"end": 7})
    ours.reset()
    assert [info["end"] for info in ours.reset_infos] == [7, 7]
    ours.set_options([{"end": 7}, {"end": 8}])
    with pytest.raises(ValueError, match=r"^options=\[\{'end': 7\}, \{'end': 8\}\]: must be the same"):
        ours.reset()


def test_attributes_and_methods_reach_single_environments() -> None:
    ours = VectorEnvAdapter(SyncVectorEnv([Walk] * 3))
    ours.set_attr("speed", 4.0, indices=[1])
    assert ours.get_attr("speed") == [1, 4, 1]
    assert ours.get_attr("speed", indices=1) == [4]
    assert ours.env_method("double", 5, indices=[0, 2]) == [10, 10]
    assert ours.has_attr("end")
    assert not ours.has_attr("no_such_thing")
    ours.set_attr("speed", 2.0)
    ours.reset()
    assert ours.step(np.array([[2, 0]] * 3))[1].tolist() == [4, 4, 4]


def test_attributes_and_methods_reach_processes() -> None:
    ours = VectorEnvAdapter(processes(AutoresetMode.SAME_STEP))
    try:
        assert not ours.has_attr("no_such_thing")  # and they live on
        ours.set_attr("gravity", 1.5, indices=[1])
        assert ours.get_attr("gravity") == [9.8, 1.5]
        assert ours.env_method("has_wrapper_attr", "gravity") == [True, True]
        with pytest.raises(ValueError, match=r"^indices=\[0\]: must be all environments"):
            ours.env_method("has_wrapper_attr", "gravity", indices=[0])
        ours.reset()
        ours.step_async(np.zeros(2, np.int64))
        equal(ours.reset().shape, (2, 4))  # type: ignore[union-attr]  # an array; the step under way is dropped
        ours.step_async(np.zeros(2, np.int64))
    finally:
        ours.close()
        ours.close()


def test_a_vector_environment_without_environments_says_so() -> None:
    ours = VectorEnvAdapter(AtariVectorEnv("pong", 1, autoreset_mode=AutoresetMode.SAME_STEP))
    assert ours.get_attr("num_envs") == [1]
    assert ours.env_is_wrapped(Monitor) == [True]
    for call in (lambda: ours.env_method("reset"), lambda: ours.set_attr("x", 1)):
        with pytest.raises(ValueError, match="has no environments inside"):
            call()


@pytest.mark.parametrize(
    ("space", "shown", "actions", "taken"),
    [
        (Discrete(3, start=1), Discrete(3), [0, 2], [1, 3]),
        (MultiDiscrete([3, 2], start=[1, -1]), MultiDiscrete([3, 2]), [[0, 0], [2, 1]], [[1, -1], [3, 0]]),
    ],
)
def test_policies_count_from_0_and_games_get_actions_of_their_own(
    space: Any,  # noqa: ANN401  # of several kinds
    shown: Any,  # noqa: ANN401
    actions: list[Any],
    taken: list[Any],
) -> None:
    games = SyncVectorEnv([lambda: Recorder(space)] * 2)
    ours = VectorEnvAdapter(games)
    assert ours.action_space == shown
    ours.reset()
    ours.step(np.array(actions))
    assert [np.asarray(game.unwrapped.taken[0]).tolist() for game in games.envs] == taken  # type: ignore[attr-defined]  # of Recorder


def test_pictures_are_tiled() -> None:
    ours = VectorEnvAdapter(SyncVectorEnv([Walk] * 2))
    ours.reset()
    ours.step(np.zeros((2, 2), np.int64))
    picture = ours.render()
    assert picture is not None
    assert picture.shape == (8, 4, 3)
    assert np.unique(picture).tolist() == [1]
    assert "render_fps" not in ours.metadata
    metadata: Any = VectorEnvAdapter(SyncVectorEnv([cart_pole])).metadata
    assert metadata["render_fps"] == cart_pole().metadata["render_fps"]


class Odd(VectorEnv[Any, Any, Any]):
    """A vector environment that only has what it is told."""

    num_envs = 2
    single_observation_space = observation_space = gymnasium.spaces.Discrete(2)
    single_action_space = action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, **metadata: Any) -> None:  # noqa: ANN401  # of vector environments
        self.metadata = metadata

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.int64), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:  # noqa: ANN401  # any kind
        return np.zeros(2, np.int64), np.zeros(2), np.ones(2, bool), np.zeros(2, bool), {}


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: cart_pole(), "must be a gymnasium.vector.VectorEnv"),
    (lambda: gymnasium.make_vec("CartPole-v1", 2), 'NextStep needs resets of single environments .*"sync"'),
    (lambda: Odd(), r"metadata\['autoreset_mode'\]=None must be one of"),
    (lambda: DictInfoToList(SyncVectorEnv([cart_pole])), "must give infos as they are, without DictInfoToList"),
    (lambda: AtariVectorEnv("pong", 2, batch_size=1), "batch_size must be num_envs"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_what_cannot_be_served_exactly_is_refused_in_one_line(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^vector_env=[^\n]*{words}[^\n]*$"):
        VectorEnvAdapter(make())


def test_processes_that_would_reset_twice_are_refused() -> None:
    inner = processes(AutoresetMode.NEXT_STEP, shared_memory=False)
    try:
        with pytest.raises(ValueError, match=re.escape("NextStep needs shared_memory=True; or pass autoreset_mode=")):
            VectorEnvAdapter(inner)
    finally:
        inner.close()


def test_a_same_step_reset_without_the_last_observation_is_an_error() -> None:
    ours = VectorEnvAdapter(Odd(autoreset_mode=AutoresetMode.SAME_STEP))
    ours.reset()
    with pytest.raises(ValueError, match="SameStep needs infos"):
        ours.step(np.zeros(2, np.int64))


def test_a_custom_environment_may_promise_resets_in_parts() -> None:
    ours = VectorEnvAdapter(Odd(autoreset_mode=AutoresetMode.NEXT_STEP), resets_in_parts=True)
    ours.reset()
    infos = ours.step(np.zeros(2, np.int64))[3]
    assert [info["episode"]["l"] for info in infos] == [1, 1]

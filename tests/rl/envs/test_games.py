"""Environments by name: of which kind a name is, what options reach, and what is said of names that are none."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

import rl.envs.games
from rl.envs.catch import CatchVecEnv
from rl.envs.checks import BrokenEnvironment
from rl.envs.games import find_kind, make_envs

IMAGES = spaces.Box(0, 255, (36, 40, 3), np.uint8)
SPACES: dict[str, spaces.Space[Any]] = {
    "Tests/Picture-v0": IMAGES,
    "Tests/Vector-v0": spaces.Box(-1, 1, (4,)),
    "Tests/Floats-v0": spaces.Box(-1, 1, (36, 40, 3)),
    "Tests/Unbounded-v0": spaces.Box(-np.inf, np.inf, (36, 40, 3)),
    "Tests/Wide-v0": spaces.Box(0, 255, (40, 96, 96), np.uint8),
}


class Game(gymnasium.Env[Any, Any]):
    """Random pictures, whatever the space, for four steps; the reward is ``reward``."""

    def __init__(self, space: spaces.Space[Any], reward: float = 1.0) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.reward, self.steps = reward, 0

    def look(self) -> npt.NDArray[Any]:
        image: npt.NDArray[Any] = self.np_random.integers(256, size=(36, 40, 3), dtype=np.uint8)
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.look(), self.reward, self.steps == 4, False, {}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    for name, space in SPACES.items():
        entry_point = f"{__name__}:Game"
        gymnasium.register(name, entry_point=entry_point, kwargs={"space": space}, disable_env_checker=True)
    yield
    for name in SPACES:
        del gymnasium.registry[name]


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("game", "kind"),
    [
        ("catch", "catch"),
        ("Catch", "catch"),
        ("CoordConv/Catch-v0", "catch"),
        ("pong", "atari"),
        ("ALE/Pong-v5", "atari"),
        ("CarRacing-v3", "gymnasium"),
        ("Tests/Picture-v0", "gymnasium"),
    ],
)
def test_names_of_every_kind_are_known(game: str, kind: str) -> None:
    assert find_kind(game) == kind


@pytest.mark.parametrize(
    ("game", "closest"),
    [
        ("pnog", "pong"),
        ("cach", "catch"),
        ("CarRacing", "CarRacing-v3"),
        ("CarRacing-v9", "CarRacing-v3"),
        ("Test/Picture-v0", "Tests/Picture-v0"),
    ],
)
def test_an_unknown_game_is_reported_with_the_closest_names(game: str, closest: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^model\.game={game}: this game does not exist; the closest are .*{closest}\b[^\n]*$"
    ):
        make_envs(game, 1)


def test_error_about_a_name_close_to_none_says_what_is_allowed() -> None:
    with pytest.raises(
        ValueError, match=r"^model\.game=\?\?\?: this game does not exist; must be catch, an Atari game .*$"
    ):
        make_envs("???", 1)


def test_games_for_two_that_would_end_the_process_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.game=ALE/Combat-v5: this game is for two players; "):
        find_kind("ALE/Combat-v5")


def test_games_of_another_namespace_are_not_taken_for_ataris() -> None:
    with pytest.raises(ValueError, match=r"^model\.game=MinAtar/Breakout-v1: this game does not exist"):
        find_kind("MinAtar/Breakout-v1")


# ------------------------------------------------------------------ environments


def test_catch_takes_its_options() -> None:
    envs = make_envs("catch", 3, 5, balls=2, paddle=1)
    assert isinstance(envs, CatchVecEnv)
    assert (envs.num_envs, envs.boards.balls, envs.boards.paddle) == (3, 2, 1)
    np.testing.assert_array_equal(envs.reset(), CatchVecEnv(3, 5, paddle=1).reset())


def test_every_option_of_atari_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: dict[str, Any] = {}

    def record(game: str, num_envs: int, seed: int | None, **options: Any) -> CatchVecEnv:  # noqa: ANN401  # any options
        passed.update(options, game=game, seed=seed)
        return CatchVecEnv(num_envs, seed)

    monkeypatch.setattr("rl.envs.atari.AtariVecEnv", record)
    chosen = {
        "episodic_life": False,
        "clip_rewards": False,
        "frame_skip": 3,
        "noop_max": 7,
        "repeat_action_probability": 0.25,
        "full_action_space": True,
        "image_size": 50,
        "max_episode_steps": 99,
        "num_threads": 2,
        "render_mode": "rgb_array",
    }
    make_envs("ALE/Pong-v5", 1, 8, **chosen)
    assert passed == {**chosen, "frame_stack": 4, "game": "ALE/Pong-v5", "seed": 8}


def test_processes_leave_an_interruption_by_the_terminal_to_the_first_one() -> None:
    envs = make_envs("Tests/Picture-v0", 1, 0, processes=True)
    assert isinstance(envs.unwrapped, SubprocVecEnv)
    envs.reset()
    pid = envs.unwrapped.processes[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    envs.step(np.zeros(1, np.int64))
    envs.close()


@pytest.mark.parametrize(("processes", "num_envs"), [(False, 3), (True, 1)])
def test_gymnasiums_games_are_seeded_one_by_one_and_report_their_episodes(processes: bool, num_envs: int) -> None:
    envs = make_envs("Tests/Picture-v0", num_envs, 20, arguments={"reward": 0.5}, processes=processes)
    assert isinstance(envs.unwrapped, SubprocVecEnv if processes else DummyVecEnv)
    try:
        images = envs.reset()
        for game in range(num_envs):
            alone = Game(IMAGES).reset(seed=20 + game)[0]
            np.testing.assert_array_equal(np.asarray(images)[game], alone.transpose(2, 0, 1))
        for _ in range(4):
            _, rewards, done, infos = envs.step(np.zeros(num_envs, np.int64))
            assert rewards.tolist() == [0.5] * num_envs
        assert done.all()
        assert [(info["episode"]["r"], info["episode"]["l"]) for info in infos] == [(2.0, 4)] * num_envs
        assert envs.env_is_wrapped(Monitor) == [True] * num_envs
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("game", "frames", "shape"),
    [
        ("Tests/Picture-v0", 2, (6, 36, 40)),
        ("Tests/Picture-v0", 16, (48, 36, 40)),  # more channels than rows
        ("Tests/Wide-v0", 2, (80, 96, 96)),
        ("catch", 2, (2, 84, 84)),
        ("catch", 90, (90, 84, 84)),
    ],
)
def test_frames_are_stacked_on_request(game: str, frames: int, shape: tuple[int, ...]) -> None:
    envs = make_envs(game, 1, 0, frame_stack=frames)
    assert isinstance(envs, VecFrameStack)
    assert envs.observation_space.shape == shape
    assert make_envs(game, 1, 0).observation_space.shape != shape
    envs.close()


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("game", ["Tests/Vector-v0", "Tests/Unbounded-v0"])
def test_observations_that_are_no_images_are_reported_in_one_line(game: str) -> None:
    message = rf"^model\.game={game}: observations are Box\([^\n]*\): must be one image, uint8 [^\n]*$"
    with pytest.raises(ValueError, match=message):
        make_envs(game, 1)


def test_wrong_arguments_of_a_game_are_reported_in_one_line() -> None:
    message = r"^model\.game=Tests/Picture-v0 with model\.arguments=\{'no_such': 1\}: [^\n]*no_such[^\n]*$"
    with pytest.raises(ValueError, match=message):
        make_envs("Tests/Picture-v0", 1, arguments={"no_such": 1})
    with pytest.raises(ValueError, match=r"^model\.game=MiniGrid-Empty-5x5-v0 with model\.arguments=\{'size': 1\}: "):
        make_envs("MiniGrid-Empty-5x5-v0", 1, arguments={"size": 1})  # the game asserts a size of 3


def test_a_process_that_ends_before_its_first_reset_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(makers: object) -> None:
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(rl.envs.games, "SubprocVecEnv", start)
    with pytest.raises(
        BrokenEnvironment, match=r"^model\.game=Tests/Picture-v0: its process ended at the start, [^\n]*$"
    ):
        make_envs("Tests/Picture-v0", 2, processes=True)


@pytest.mark.parametrize(
    ("game", "arguments", "message"),
    [
        ("Tests/Picture-v0", {"num_envs": 0}, "data.num_envs=0: must be an integer of at least 1"),
        ("catch", {"num_envs": 1, "frame_stack": 0}, "model.frame_stack=0: must be an integer of at least 1"),
    ],
)
def test_wrong_numbers_are_reported_in_one_line(game: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_envs(game, **arguments)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r"^model\.game=MiniGrid-Empty-5x5-v0: needs .*: pip install minigrid$"):
        make_envs("MiniGrid-Empty-5x5-v0", 1)
    with pytest.raises(ImportError, match=r"^model\.game=no_such_package:Game-v0: [^\n]*No module named[^\n]*$"):
        make_envs("no_such_package:Game-v0", 1)


def test_a_game_that_lacks_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Game, space: spaces.Space[Any]) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed,\nrun `pip install box2d`")

    monkeypatch.setattr(Game, "__init__", fail)
    with pytest.raises(ImportError, match=r"^model\.game=Tests/Picture-v0: Box2D is not installed, run `pip .*`$"):
        make_envs("Tests/Picture-v0", 1)


def test_a_game_of_a_module_is_found_after_importing_it() -> None:
    envs = make_envs(f"{__name__}:Tests/Picture-v0", 1)
    assert envs.observation_space.shape == (3, 36, 40)
    envs.close()


@pytest.mark.parametrize(
    ("game", "options", "message"),
    [
        (
            "catch",
            {"arguments": {"balls": 3}},
            "model.arguments={'balls': 3}: is for Gymnasium environments and Atari games only",
        ),
        ("catch", {"processes": True}, "data.processes=True: is for Gymnasium environments only"),
        ("catch", {"image_size": 40}, "model.image_size=40: is for Atari games only"),
        ("Tests/Picture-v0", {"frame_skip": 2}, "data.frame_skip=2: is for Atari games only"),
        ("Tests/Picture-v0", {"paddle": 5}, "data.paddle=5: is for Catch only"),
    ],
)
def test_options_that_a_game_would_ignore_are_refused(game: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}; model.game={game} would ignore it$"):
        make_envs(game, 1, **options)


def test_floating_point_images_are_scaled_to_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.linspace(-1, 1, 36 * 40 * 3, dtype=np.float32).reshape(36, 40, 3)
    monkeypatch.setattr(Game, "look", lambda self: pixels)
    envs = make_envs("Tests/Floats-v0", 2)
    assert envs.observation_space == spaces.Box(0, 255, (3, 36, 40), np.uint8)
    seen = envs.reset()
    assert isinstance(seen, np.ndarray)
    assert seen.dtype == np.uint8
    assert np.abs(seen[1] / 127.5 - 1 - pixels.transpose(2, 0, 1)).max() <= 0.5001 / 127.5
    pixels[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match="an image is NaN or infinite"):
        envs.step(np.zeros(2, np.int64))
    envs.close()


def test_a_mode_of_an_atari_game_plays_stable_baselines3s_episodes() -> None:
    settings: dict[str, Any] = {"mode": 4, "difficulty": 1}
    envs = make_envs("breakout", 2, 3, arguments=settings, image_size=40, noop_max=5, max_episode_steps=30)
    wrapper = {"noop_max": 5, "screen_size": 40}
    arguments = {**settings, "frameskip": 1, "repeat_action_probability": 0.0, "max_num_frames_per_episode": 120}
    theirs = VecFrameStack(make_atari_env("ALE/Breakout-v5", 2, 3, wrapper_kwargs=wrapper, env_kwargs=arguments), 4)
    assert envs.observation_space.shape == (4, 40, 40)
    actions = np.random.default_rng(0)
    seen: Any = envs.reset()
    expected: Any = theirs.reset()
    ended = 0
    for _ in range(80):
        assert np.array_equal(seen, expected.transpose(0, 3, 1, 2))
        action = actions.integers(4, size=2)
        seen, rewards, dones, infos = envs.step(action)
        expected, their_rewards, their_dones, their_infos = theirs.step(action)
        assert (rewards.tolist(), dones.tolist()) == (their_rewards.tolist(), their_dones.tolist())
        for info, other in zip(infos, their_infos, strict=True):
            ended += "episode" in info
            assert info.get("episode", {}).get("r") == other.get("episode", {}).get("r")
    assert ended >= 2
    envs.close()
    theirs.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": 1}, "model.arguments={'rules': 1}: rules must be mode or difficulty for Atari games"),
        ({"mode": 9}, "model.arguments={'mode': 9}: mode=9 must be one of 0, 1 for pong"),
        ({"mode": True}, "mode=True must be one of 0, 1 for pong"),
        ({"mode": 1, "difficulty": "1"}, "difficulty=1 must be one of 0, 1, 2, 3 for pong"),
    ],
)
def test_modes_that_a_game_does_not_have_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(message)}$"):
        make_envs("pong", 1, arguments=arguments)

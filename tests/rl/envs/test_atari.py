"""Atari beside Stable-Baselines3's own stack on the same actions, and what only `AtariVecEnv` has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rl.envs.atari
from rl.envs.atari import AtariVecEnv
from rl.envs.emulator import Game
from tests.rl.reference_envs import same, stock_atari


def differences(ours: Any, stock: Any) -> Any:  # noqa: ANN401  # images
    return np.abs(np.asarray(ours, np.int16) - np.asarray(stock, np.int16))


def check_infos(ours: dict[str, Any], stock: dict[str, Any]) -> None:
    """Asserts that both tell the same; the picture in which a game ends is not drawn by the emulator."""
    assert ours.keys() >= {"lives", "episode_frame_number", "frame_number", "TimeLimit.truncated"}
    for name in ("lives", "episode_frame_number", "TimeLimit.truncated"):
        assert ours[name] == stock[name]
    assert ("episode" in ours) == ("episode" in stock)
    if "episode" in ours:
        assert {name: ours["episode"][name] for name in "rl"} == {name: stock["episode"][name] for name in "rl"}
    assert ("terminal_observation" in ours) == ("terminal_observation" in stock)
    if "terminal_observation" in ours:
        game_over = "episode" in ours and not ours["TimeLimit.truncated"]
        frames = slice(0, 3 if game_over else 4)
        assert differences(ours["terminal_observation"][frames], stock["terminal_observation"][frames]).max() <= 1


@pytest.mark.parametrize(
    ("game", "episodic_life", "limit", "frames", "steps"),
    [
        ("Breakout", True, 27_000, 108_000, 160),  # FIRE, five lives, games that are over
        ("Breakout", False, 50, 200, 110),  # cut off
        ("NameThisGame", True, 110, 442, 80),  # 134 frames that the emulator plays by itself; ends with a step
        ("MsPacman", True, 27_000, 108_000, 170),  # no FIRE, rewards above 1
    ],
)
def test_every_step_is_that_of_stable_baselines(
    game: str, episodic_life: bool, limit: int, frames: int, steps: int
) -> None:
    ours = AtariVecEnv(game, 2, 3, noop_max=0, max_episode_steps=limit, episodic_life=episodic_life)
    stock: Any = stock_atari(game, 2, limit=frames, episodic_life=episodic_life)
    assert ours.observation_space == stock.observation_space
    assert ours.action_space == stock.action_space
    assert differences(ours.reset(), stock.reset()).max() <= 1
    actions = np.random.default_rng(0).integers(0, stock.action_space.n, (steps, 2))
    total = ends = games = gained = 0
    for action in actions:
        observations, rewards, dones, infos = ours.step(action)
        others = stock.step(action)
        difference = differences(observations, others[0])
        assert difference.max() <= 1  # rounding
        total += difference.sum()
        np.testing.assert_array_equal(rewards, others[1])
        np.testing.assert_array_equal(dones, others[2])
        assert (rewards.dtype, dones.dtype) == (others[1].dtype, others[2].dtype)
        for info, other in zip(infos, others[3], strict=True):
            check_infos(info, other)
        ends += dones.sum()
        gained += rewards.sum()
        games += sum("episode" in info for info in infos)
    assert total / (steps * difference.size) < 0.002
    # Something of each kind must have happened for this to say anything.
    assert ends > (2 * games if game == "Breakout" and episodic_life else 0)
    assert games > 0 or game == "MsPacman"
    assert gained > 0 or limit < 27_000
    ours.close()
    stock.close()


class Scripted:
    """A game that does what a list says: "life", "over", "cut" or nothing after each action."""

    running = most = 0

    def __init__(self, script: list[str]) -> None:
        self.script, self.played = script, []  # type: list[str], list[Any]
        self.over = self.cut_off = self.life_lost = False
        self.score = self.reward = 0.0
        self.length = self.lives = 0
        self.clip_rewards = True

    @property
    def finished(self) -> bool:
        return self.over or self.cut_off

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "FIRE", "UP"]

    def restart(self, seed: int | None) -> None:
        self.played.append("restart")
        self.over = self.cut_off = self.life_lost = False
        self.score = 0.0

    def send(self, action: int) -> None:
        type(self).running += 1
        type(self).most = max(self.most, self.running)
        self.played.append(action)

    def receive(self) -> None:
        type(self).running -= 1
        starts = self.over
        event = self.script.pop(0) if self.script else ""
        self.over, self.cut_off, self.life_lost = event == "over", event == "cut", event == "life"
        self.reward = 2.0
        self.score = 0.0 if starts else self.score + 2.0

    def observe(self, *, first: bool = False) -> Any:  # noqa: ANN401  # an image
        return np.zeros((4, 84, 84), np.uint8)

    def info(self) -> dict[str, Any]:
        return {}


def scripted(monkeypatch: pytest.MonkeyPatch, *scripts: str, **options: Any) -> tuple[AtariVecEnv, list[list[Any]]]:  # noqa: ANN401  # of AtariVecEnv
    """Environments on games with these scripts, after their reset, and what will be played from then on."""
    games = [Scripted(["", "", *script.split(",")]) for script in scripts]
    remaining = iter(games)
    monkeypatch.setattr(rl.envs.atari, "Game", lambda *_, **__: next(remaining))
    monkeypatch.setattr(Scripted, "most", 0)
    envs = AtariVecEnv("pong", len(scripts), **options)
    envs.reset()
    for game in games:
        assert game.played == ["restart", 1, 2]
        game.played.clear()
    return envs, [game.played for game in games]


@pytest.mark.parametrize(
    ("script", "played", "score"),
    [
        ("", [0], None),
        ("life", [0, 0, 1, 2], None),  # a no-op, FIRE and the action after it, as EpisodicLifeEnv and FireResetEnv
        ("over", [0, 0, 1, 2], 6),  # the action after the end starts a new game
        ("cut", [0, "restart", 1, 2], 6),
        ("life,over", [0, 0, 0, 1, 2], 8),  # the no-op ends the game
        ("life,,over", [0, 0, 1, 0, 2], 10),  # FIRE ends the game
        ("life,,life", [0, 0, 1, 0, 2], None),  # FIRE loses a life
        ("life,,,cut", [0, 0, 1, 2, "restart"], 12),
    ],
)
def test_a_new_episode_is_opened_as_by_stable_baselines3(
    monkeypatch: pytest.MonkeyPatch, script: str, played: list[Any], score: float | None
) -> None:
    envs, (found,) = scripted(monkeypatch, script)
    _, rewards, dones, infos = envs.step(np.zeros(1, np.int64))
    assert found == played
    assert rewards.tolist() == [1.0]
    assert dones.tolist() == [script != ""]
    assert infos[0]["TimeLimit.truncated"] == (script == "cut")
    assert ("terminal_observation" in infos[0]) == bool(script)
    assert infos[0].get("episode", {}).get("r") == score


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_no_more_games_run_at_a_time_than_asked_for(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    envs, played = scripted(monkeypatch, "life", "", "over,,over", num_threads=threads)
    dones = envs.step(np.array([2, 1, 0]))[2]
    assert played == [[2, 0, 1, 2], [1], [0, 0, 1, 0, 2]]
    assert dones.tolist() == [True, False, True]
    assert Scripted.most == (threads or 3)


def trajectory(envs: AtariVecEnv, steps: int = 12) -> list[Any]:
    rng = np.random.default_rng(0)
    found = [envs.reset()]
    for _ in range(steps):
        observations, rewards, dones, _ = envs.step(rng.integers(0, 4, envs.num_envs))
        found += [observations, rewards, dones]
    return found


def test_the_same_seed_gives_the_same_steps_and_every_game_has_its_own() -> None:
    envs = AtariVecEnv("breakout", 2, 0, repeat_action_probability=0.25)
    first = trajectory(envs)
    assert not np.array_equal(first[-3][0], first[-3][1])
    assert not same(first, trajectory(envs))  # a seed serves once
    assert envs.seed(0) == [0, 1]
    assert same(first, trajectory(envs))
    envs.seed(1)
    second = trajectory(envs)
    assert np.array_equal(second[0][0], first[0][1])  # game i gets seed + i
    envs.close()
    one_by_one = AtariVecEnv("breakout", 2, 0, repeat_action_probability=0.25, num_threads=1)
    assert same(first, trajectory(one_by_one))


def test_no_ops_are_drawn_between_nothing_and_their_limit() -> None:
    def frames(noop_max: int) -> set[int]:
        envs = AtariVecEnv("freeway", 6, 0, noop_max=noop_max)  # has no FIRE
        envs.reset()
        return {info["episode_frame_number"] for info in envs.reset_infos}

    assert frames(2) == {0, 1}
    assert frames(0) == {0}


def test_sticky_actions_hold_the_action_before() -> None:
    stuck = AtariVecEnv("breakout", 1, 0, repeat_action_probability=1.0, use_fire_reset=False)
    plain = AtariVecEnv("breakout", 1, 0, use_fire_reset=False)
    for envs in (stuck, plain):
        envs.reset()
    for _ in range(4):
        assert differences(stuck.step(np.array([2]))[0], plain.step(np.array([0]))[0]).max() == 0
    assert differences(stuck.step(np.array([2]))[0], plain.step(np.array([2]))[0]).max() > 0


def test_scores_are_unclipped_and_rewards_as_asked_for() -> None:
    both = [
        AtariVecEnv("space_invaders", 1, 1, max_episode_steps=200, episodic_life=False, clip_rewards=clip)
        for clip in (True, False)
    ]
    clipped, plain, score = [], [], -1.0
    for envs in both:
        envs.reset()
    for step in range(210):
        action = np.array([1 + step // 4 % 3])
        clipped.append(both[0].step(action)[1][0])
        _, rewards, dones, infos = both[1].step(action)
        plain.append(rewards[0])
        if dones[0]:
            score = infos[0]["episode"]["r"]
            break
    assert score == sum(plain) > 10
    assert clipped == np.sign(plain).tolist()
    assert infos[0]["TimeLimit.truncated"]
    assert set(plain) >= {0, 5}


def test_options_of_the_picture_and_the_actions_take_effect() -> None:
    envs = AtariVecEnv("pong", 1, 0, frame_stack=3, image_size=40, full_action_space=True, frame_skip=2, noop_max=1)
    observation = envs.reset()
    assert np.asarray(observation).shape == (1, 3, 40, 40)
    assert [bool(frame.any()) for frame in observation[0]] == [False, False, True]  # type: ignore[index]  # an array
    assert len(envs.env_method("get_action_meanings")[0]) == 18
    assert envs.reset_infos[0]["episode_frame_number"] == 2 * 2
    observation = envs.step(np.array([17]))[0]
    assert [bool(frame.any()) for frame in observation[0]] == [False, True, True]  # type: ignore[index]  # an array


# ------------------------------------------------------------------ games


@pytest.mark.parametrize("game", ["backgammon", "video_checkers"])
def test_games_without_a_no_op_are_played_all_the_same(game: str) -> None:
    assert Game(game, 0, steps=None, episodic_life=True, frame_skip=4).get_action_meanings()[0] == "FIRE"
    envs = AtariVecEnv(game, 1, 0)
    envs.reset()
    assert envs.step(np.array([0]))[0].any()  # type: ignore[union-attr]  # an array


def test_a_reset_starts_new_games_in_the_middle_of_one_and_of_a_step() -> None:
    envs = AtariVecEnv("pong", 2, 4, noop_max=0)
    first = envs.reset()
    for _ in range(3):
        envs.step(np.array([2, 3]))
    envs.step_async(np.array([2, 3]))
    np.testing.assert_array_equal(envs.reset(), first)
    assert envs.get_attr("length") == [8, 8]
    assert [envs.get_attr(name, 1) for name in ("game", "score", "lives")] == [["pong"], [0.0], [0]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 0}, "num_envs=0: must be an integer of at least 1"),
        ({"frame_skip": 0}, "frame_skip=0: must be an integer of at least 1"),
        ({"frame_stack": 0}, "frame_stack=0: must be an integer of at least 1"),
        ({"image_size": 0}, "image_size=0: must be an integer of at least 1"),
        ({"noop_max": -1}, "noop_max=-1: must be an integer of at least 0"),
        ({"frame_skip": 10**9}, "frame_skip=1000000000: must be at most 1000"),
        ({"noop_max": 10**9}, "noop_max=1000000000: must be at most 10000"),
        ({"num_threads": -1}, "num_threads=-1: must be an integer of at least 0"),
        ({"max_episode_steps": 0}, "max_episode_steps=0: must be an integer of at least 1"),
        ({"repeat_action_probability": 1.5}, "repeat_action_probability=1.5: must be from 0 to 1"),
        ({"render_mode": "human"}, "render_mode=human: must be rgb_array or None"),
    ],
)
def test_numbers_out_of_range_are_reported_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        AtariVecEnv("pong", **{"num_envs": 1, **options})


def test_actions_that_would_hang_the_emulators_are_refused() -> None:
    envs = AtariVecEnv("pong", 2, 0)
    envs.reset()
    for actions in ([6, 0], [0, -1], [0], [0.0, 1.0], [[0, 1]]):
        with pytest.raises(ValueError, match=r"^actions=.*: must be 2 integers from 0 to 5$"):
            envs.step(np.array(actions))
    envs.step(np.array([5, 0]))  # and nothing hangs


def test_steps_need_a_reset_and_open_games() -> None:
    envs = AtariVecEnv("pong", 1)
    with pytest.raises(RuntimeError, match="must follow reset"):
        envs.step_async(np.array([0]))
    envs.reset()
    envs.step_async(np.array([0]))
    with pytest.raises(RuntimeError, match="must follow reset"):
        envs.step_async(np.array([0]))
    envs.close()
    envs.close()
    with pytest.raises(RuntimeError, match="the environment is closed"):
        envs.reset()


def test_attributes_that_are_set_take_effect_and_others_are_refused() -> None:
    envs = AtariVecEnv("space_invaders", 2, 1, noop_max=0, max_episode_steps=200)
    envs.reset()
    envs.set_attr("clip_rewards", False, indices=[1])
    assert envs.get_attr("clip_rewards") == [True, False]
    rewards = np.array([envs.step(np.full(2, 1 + step // 4 % 3))[1] for step in range(120)])
    assert set(rewards[:, 0]) == {0, 1}
    assert rewards[:, 1].max() >= 5
    for name in ("frame_skip", "num_envs", "no_such_attribute"):
        with pytest.raises(AttributeError, match=f"^attr_name='{name}': must be clip_rewards or episodic_life"):
            envs.set_attr(name, 1)

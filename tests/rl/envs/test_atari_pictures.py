"""Pictures of Atari's games in colour, beside what the learner sees of the same games."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rl.envs.atari import AtariVecEnv
from rl.envs.emulator import ColourGame
from tests.rl.reference_envs import area_weights, same


def in_grey(picture: Any) -> Any:  # noqa: ANN401  # an image
    """A picture as the learner sees it."""
    rows, columns = area_weights(len(picture), 84), area_weights(160, 84)
    return rows @ (picture @ np.array([0.299, 0.587, 0.114])) @ columns.T


def check_pictures(envs: AtariVecEnv, observations: Any) -> None:  # noqa: ANN401  # images
    """Asserts that the pictures show what the newest frames show, with colours."""
    for picture, observation in zip(envs.get_images(), observations, strict=True):
        assert picture is not None
        assert picture.dtype == np.uint8
        assert picture.shape[1:] == (160, 3)
        assert (picture != picture[..., :1]).any()
        difference = np.abs(in_grey(picture) - observation[-1])
        # The maximum of two frames is taken of each colour here and of the greys there, which differs where they do.
        assert difference.mean() < 1
        assert (difference > 8).mean() < 0.02


@pytest.mark.parametrize(
    ("game", "height", "options", "ends", "games"),
    [
        ("breakout", 210, {}, 10, 2),
        ("breakout", 210, {"repeat_action_probability": 0.25, "noop_max": 0}, 10, 2),
        ("ms_pacman", 210, {"max_episode_steps": 60, "repeat_action_probability": 0.25}, 6, 6),  # cut off
        ("pacman", 250, {"num_threads": 1, "frame_stack": 1}, 2, 0),  # a higher screen
    ],
)
def test_pictures_in_colour_are_of_the_same_game(
    game: str, height: int, options: dict[str, Any], ends: int, games: int
) -> None:
    plain = AtariVecEnv(game, 2, 5, **options)
    shown = AtariVecEnv(game, 2, 5, render_mode="rgb_array", **options)
    first: Any = shown.reset()
    assert same([first], [plain.reset()])
    check_pictures(shown, first)
    rng = np.random.default_rng(2)
    ours: list[Any]
    over = finished = 0
    for step in range(250):
        actions = rng.integers(0, len(shown.env_method("get_action_meanings")[0]), 2)
        (*ours, infos), (*stock, others) = shown.step(actions), plain.step(actions)
        assert same(ours, stock)
        for info, other in zip(infos, others, strict=True):
            check_same_infos(info, other)
        over += int(ours[2].sum())
        finished += sum("episode" in info for info in infos)
        if ours[2].any() or step % 10 == 0:
            check_pictures(shown, ours[0])
    assert over >= ends
    assert finished >= games
    assert [picture.shape for picture in shown.get_attr("picture")] == [(height, 160, 3)] * 2


def check_same_infos(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert np.array_equal(one.pop("terminal_observation", None), other.pop("terminal_observation", None))
    for info in (one, other):
        info.get("episode", {}).pop("t", None)
    assert one == other


def test_pictures_are_of_the_same_game_without_a_seed_too() -> None:
    envs = AtariVecEnv("breakout", 2, render_mode="rgb_array", repeat_action_probability=0.25, max_episode_steps=30)
    starts = []
    for seed in (None, None, 0, None):
        if seed is not None:
            envs.seed(seed)
        observations = envs.reset()
        starts += [info["frame_number"] for info in envs.reset_infos]
        for _ in range(70):  # cut off twice; the emulators compare what they count
            observations = envs.step(np.array([2, 3]))[0]
            check_pictures(envs, observations)
    assert len(set(starts)) > 1


def test_pictures_that_were_handed_out_stay_and_are_tiled() -> None:
    envs = AtariVecEnv("pong", 2, 0, render_mode="rgb_array")
    assert (envs.render_mode, envs.metadata["render_modes"]) == ("rgb_array", ["human", "rgb_array"])
    with pytest.raises(RuntimeError, match=r"^get_images\(\) must follow reset\(\)$"):
        envs.get_images()
    envs.reset()
    first = [np.asarray(picture) for picture in envs.get_images()]
    kept = [picture.copy() for picture in first]
    for _ in range(20):
        envs.step(np.array([2, 3]))
    assert same(first, kept)
    tiled = envs.render()
    assert tiled is not None
    np.testing.assert_array_equal(tiled, np.concatenate([np.asarray(picture) for picture in envs.get_images()]))
    assert not same(first, list(envs.get_images()))
    envs.close()
    with pytest.raises(RuntimeError, match="the environment is closed"):
        envs.get_images()


def test_there_are_no_pictures_unless_asked_for() -> None:
    envs = AtariVecEnv("pong", 2, 0)
    assert (envs.render_mode, envs.metadata["render_modes"]) == (None, [])
    assert not any(isinstance(game, ColourGame) for game in envs._games)
    envs.reset()
    with pytest.warns(UserWarning, match="render_mode=None: get_images.. needs rgb_array"):
        assert envs.get_images() == [None, None]
    with pytest.warns(UserWarning, match="no `render_mode` was passed"):
        assert envs.render() is None

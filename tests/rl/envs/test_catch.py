"""Catch against a plain loop of its rules, and as an environment of Stable-Baselines3's and of Gymnasium's."""

from collections.abc import Callable
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import rl.atari
import rl.catch
from rl.envs.atari import AtariVecEnv
from rl.envs.catch import (
    BALLS,
    BEST_SCORE,
    GRID,
    PADDLE,
    RANDOM_SCORE,
    Boards,
    Catch,
    CatchVecEnv,
)

LENGTH = BALLS * GRID - 1

Images = npt.NDArray[np.uint8]
Actions = npt.NDArray[np.int64]


def step(envs: VecEnv, actions: Actions) -> tuple[Images, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[Any]]:
    """One step, with the types of these observations."""
    images, rewards, done, infos = envs.step(actions)
    return cast(Images, images), rewards, done, infos


def draw_by_loops(column: int, row: int, left: int, paddle: int) -> Images:
    image = np.zeros((84, 84), np.uint8)
    for y in range(84):
        for x in range(84):
            if y // 7 == 11 and left <= x // 7 < left + paddle:
                image[y, x] = 128
            if y // 7 == row and x // 7 == column:
                image[y, x] = 255
    return image


def look(image: Images) -> tuple[int, int, int]:
    """Column and row of the ball, and the middle column of the paddle, from what is seen of it."""
    cells = image[0, ::7, ::7]
    ((row, column),) = np.argwhere(cells == 255)
    # Where the ball has landed it may hide the paddle.
    paddle = np.flatnonzero(cells[-1])
    return int(column), int(row), int(paddle[len(paddle) // 2])


def follow(images: Images) -> Actions:
    """Actions that move the paddles under the balls."""
    seen = [look(image) for image in images]
    return np.array([1 + np.sign(column - paddle) if row < 11 else 1 for column, row, paddle in seen])


def play(envs: CatchVecEnv, steps: int, actions: Callable[[Images], Actions]) -> list[dict[str, Any]]:
    """The infos of finished episodes; ``actions`` gives those of a step from the observations."""
    images, finished = envs.reset(), list[dict[str, Any]]()
    for _ in range(steps):
        images, _, done, infos = step(envs, actions(images))
        finished += [info for info, over in zip(infos, done, strict=True) if over]
    return finished


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize(("balls", "paddle"), [(1, 1), (2, 2), (3, 5)])
def test_a_game_is_that_of_a_plain_loop(balls: int, paddle: int) -> None:
    envs = CatchVecEnv(1, seed=7, balls=balls, paddle=paddle)
    actions = np.random.default_rng(0).integers(3, size=200)
    columns = np.random.default_rng(7)
    column, row, left, landed, score, steps = int(columns.integers(12)), 0, (12 - paddle) // 2, 0, 0.0, 0
    images = envs.reset()
    np.testing.assert_array_equal(images[0, 0], draw_by_loops(column, row, left, paddle))
    for action in actions:
        images, rewards, done, infos = step(envs, np.array([action]))
        left = min(max(left + int(action) - 1, 0), 12 - paddle)
        if row == 11:
            column, row = int(columns.integers(12)), 0
        else:
            row += 1
        reward = 0 if row < 11 else 1 if left <= column < left + paddle else -1
        landed, score, steps = landed + (row == 11), score + reward, steps + 1
        assert rewards[0] == reward
        assert done[0] == (landed == balls)
        if landed == balls:
            last = draw_by_loops(column, row, left, paddle)
            np.testing.assert_array_equal(infos[0]["terminal_observation"][0], last)
            assert (infos[0]["episode"]["r"], infos[0]["episode"]["l"]) == (score, steps)
            column, row, left, landed, score, steps = int(columns.integers(12)), 0, (12 - paddle) // 2, 0, 0.0, 0
        else:
            assert "episode" not in infos[0]
            assert "terminal_observation" not in infos[0]
        assert infos[0]["TimeLimit.truncated"] is False
        np.testing.assert_array_equal(images[0, 0], draw_by_loops(column, row, left, paddle))


def test_whoever_follows_the_ball_gets_the_best_score() -> None:
    finished = play(CatchVecEnv(16, seed=1, paddle=1), 4 * LENGTH, follow)
    assert [info["episode"]["r"] for info in finished] == [BEST_SCORE] * 64
    assert {info["episode"]["l"] for info in finished} == {LENGTH}


@pytest.mark.parametrize("moves", [True, False])
def test_a_paddle_that_ignores_the_ball_has_the_random_score(moves: bool) -> None:
    generator = np.random.default_rng(3)

    def act(images: Images) -> Actions:
        return generator.integers(3, size=len(images)) if moves else np.ones(len(images), np.int64)

    scores = [info["episode"]["r"] for info in play(CatchVecEnv(200, seed=2), 5 * LENGTH, act)]
    assert len(scores) == 1000
    # Balls are caught or missed independently of one another.
    deviation = 2 * (PADDLE / 12 * (1 - PADDLE / 12) * BALLS / len(scores)) ** 0.5
    assert np.mean(scores) == pytest.approx(RANDOM_SCORE, abs=4 * deviation)


# ------------------------------------------------------------------ seeds


def trajectory(envs: CatchVecEnv, steps: int = 100) -> Images:
    actions = np.random.default_rng(0).integers(3, size=steps)  # the same for all games
    return np.stack([envs.reset(), *(step(envs, np.full(envs.num_envs, action))[0] for action in actions)])


def test_a_seed_fixes_a_game_whatever_games_are_beside_it() -> None:
    whole = trajectory(CatchVecEnv(4, seed=10))
    np.testing.assert_array_equal(whole, trajectory(CatchVecEnv(4, seed=10)))
    halves = [trajectory(CatchVecEnv(2, seed=10)), trajectory(CatchVecEnv(2, seed=12))]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))
    assert (whole[:, 0] != whole[:, 1]).any()


def test_each_game_ends_with_its_own_last_observation() -> None:
    def last(envs: CatchVecEnv) -> list[Images]:
        stay = play(envs, LENGTH, lambda images: np.ones(len(images), np.int64))
        return [info["terminal_observation"] for info in stay]

    together = last(CatchVecEnv(3, seed=10))
    alone = [last(CatchVecEnv(1, seed=10 + game))[0] for game in range(3)]
    np.testing.assert_array_equal(together, alone)
    assert (together[0] != together[1]).any()


def test_a_seed_holds_from_the_next_reset_on_and_for_that_alone() -> None:
    envs = CatchVecEnv(2, seed=5)
    first = trajectory(envs)
    second = trajectory(envs)
    assert (first != second).any(), "random numbers go on"
    assert list(envs.seed(5)) == [5, 6]
    np.testing.assert_array_equal(trajectory(envs), first)


def test_reset_forgets_the_episode_that_was_begun() -> None:
    envs = CatchVecEnv(2, seed=6)
    play(envs, 30, follow)
    finished = play(envs, LENGTH, follow)
    assert [(info["episode"]["r"], info["episode"]["l"]) for info in finished] == [(BEST_SCORE, LENGTH)] * 2


# ------------------------------------------------------------------ Stable-Baselines3 and Gymnasium


def test_one_game_is_the_same_in_gymnasium_seed_for_seed() -> None:
    envs = CatchVecEnv(1, seed=9)
    stock = DummyVecEnv([lambda: Monitor(Catch())])
    stock.seed(9)
    np.testing.assert_array_equal(stock.reset(), envs.reset())
    for action in np.random.default_rng(0).integers(3, size=3 * LENGTH):
        ours, others = step(envs, np.array([action])), step(stock, np.array([action]))
        for mine, other in zip(map(np.asarray, ours[:3]), map(np.asarray, others[:3]), strict=True):
            np.testing.assert_array_equal(mine, other)
            assert mine.dtype == other.dtype
        assert ours[3][0].keys() == others[3][0].keys()
        assert ours[3][0]["TimeLimit.truncated"] == others[3][0]["TimeLimit.truncated"]
        if ours[2][0]:
            assert [ours[3][0]["episode"][key] for key in "rl"] == [others[3][0]["episode"][key] for key in "rl"]
            last = [info[0]["terminal_observation"] for info in (ours[3], others[3])]
            np.testing.assert_array_equal(*last)


def test_former_import_paths_still_work() -> None:
    assert rl.catch.Catch is Catch
    assert rl.atari.AtariVecEnv is AtariVecEnv


def test_gymnasium_knows_the_game_by_name_and_sb3_finds_nothing_wrong_with_it() -> None:
    game = gymnasium.make("CoordConv/Catch-v0", balls=2, render_mode="rgb_array")
    assert isinstance(game.unwrapped, Catch)
    assert game.unwrapped.boards.balls == 2
    check_env(game.unwrapped)
    game.close()


def test_rendering_shows_the_observation() -> None:
    envs = CatchVecEnv(3, seed=0)
    images = envs.reset()
    for image, shown in zip(images, envs.get_images(), strict=True):
        np.testing.assert_array_equal(shown, np.broadcast_to(image[0, :, :, None], (84, 84, 3)))
    tiled = envs.render()
    assert tiled is not None
    assert tiled.shape == (168, 168, 3)
    assert envs.metadata["render_fps"] == Catch.metadata["render_fps"]
    game = Catch(render_mode="rgb_array")
    image = game.reset(seed=0)[0]
    shown_one = game.render()
    assert shown_one is not None
    np.testing.assert_array_equal(shown_one[:, :, 1], image[0])
    assert Catch().render() is None


def test_attributes_are_those_of_the_whole() -> None:
    envs = CatchVecEnv(3, seed=0)
    assert envs.get_attr("render_mode", [0, 2]) == ["rgb_array"] * 2
    with pytest.raises(AttributeError, match="render_mode: single games"):
        envs.set_attr("render_mode", None)
    with pytest.raises(AttributeError, match="reset: single games"):
        envs.env_method("reset")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs=0: must be an integer of at least 1"),
        ({"num_envs": 1, "balls": 0}, "balls=0: must be an integer of at least 1"),
        ({"num_envs": 1, "paddle": 0}, r"paddle=0: must be an integer in \[1, 11\]"),
        ({"num_envs": 1, "paddle": 12}, r"paddle=12: must be an integer in \[1, 11\]"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        CatchVecEnv(**arguments)


def test_an_unknown_render_mode_is_reported_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^render_mode=human: must be rgb_array or None$"):
        Catch(render_mode="human")


def test_boards_without_a_seed_differ() -> None:
    boards = Boards(100)
    boards.begin()
    assert len({look(image)[0] for image in boards.draw()}) > 1

"""Published scores: which games have them, under which names, and what normalising by them gives."""

import pytest
from ale_py.roms import get_all_rom_ids

from rl.envs.catch import BEST_SCORE, RANDOM_SCORE
from rl.envs.game_options import GameOptions
from rl.evaluation.scores import ATARI_SCORES, human_normalised, reference_scores


def test_57_games_of_the_emulator_have_scores_and_humans_are_better_than_random_play() -> None:
    assert len(ATARI_SCORES) == 57
    assert set(ATARI_SCORES) <= set(get_all_rom_ids())
    assert [game for game, scores in ATARI_SCORES.items() if not scores.good > scores.random] == []


def test_random_play_has_0_and_a_human_1() -> None:
    assert human_normalised("ALE/SpaceInvaders-v5", 148.0) == 0
    assert human_normalised("SpaceInvaders", 1668.7) == 1


def test_the_scale_is_linear() -> None:
    assert human_normalised("pong", 21.0) == pytest.approx((21.0 + 20.7) / (14.6 + 20.7))
    assert human_normalised("skiing", -30000.0) == pytest.approx((-30000 + 17098.1) / (17098.1 - 4336.9))


def test_best_play_at_catch_has_1() -> None:
    assert human_normalised("catch", BEST_SCORE) == 1
    assert human_normalised("catch", RANDOM_SCORE) == 0


@pytest.mark.parametrize("game", ["tetris", "CarRacing-v3", "MinAtar/Breakout-v1", "CoordConv/Pong-v0", "ALE/Catch-v5"])
def test_other_games_have_no_scores(game: str) -> None:
    assert reference_scores(game) is None
    assert human_normalised(game, 1.0) is None


@pytest.mark.parametrize(
    ("game", "options"),
    [
        ("pong", GameOptions(arguments={"mode": 1})),
        ("pong", GameOptions(arguments={"mode": 0, "difficulty": 2})),
        ("catch", GameOptions(balls=3)),
        ("catch", GameOptions(paddle=5)),
    ],
)
def test_other_rules_have_no_scores(game: str, options: GameOptions) -> None:
    assert human_normalised(game, 1.0, options) is None


def test_rules_that_are_the_default_ones_have_scores() -> None:
    options = GameOptions(arguments={"mode": 8, "difficulty": 0}, frame_stack=2)
    assert human_normalised("name_this_game", 8049.0, options) == 1

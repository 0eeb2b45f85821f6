"""Atari games by name."""

from __future__ import annotations

import pytest

from rl.envs.roms import atari_games, find_game


@pytest.mark.parametrize(
    "name",
    [
        "space_invaders",
        "SpaceInvaders",
        "space invaders",
        "ALE/SpaceInvaders-v5",
        "SpaceInvadersNoFrameskip-v4",
        "SpaceInvadersDeterministic-v0",
    ],
)
def test_a_game_is_found_in_every_spelling(name: str) -> None:
    assert find_game(name) == "space_invaders"


def test_every_game_has_its_own_name() -> None:
    games = atari_games()
    assert len(games) == len(set(games)) > 100
    assert [find_game(game) for game in games] == games
    assert [find_game(game.title().replace("_", "")) for game in games] == games


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pongg", "this Atari game does not exist; the closest are pong"),
        ("ALE/SpaceInvader-v5", "this Atari game does not exist; the closest are space_invaders"),
        ("Pong-ram-v4", "this Atari game does not exist; the closest are pong"),  # its observations are no images
        ("0", r"this Atari game does not exist; rl\.envs\.roms\.atari_games\(\) lists all of them"),
        ("combat", "is for two players"),
        ("combatt", r"this Atari game does not exist; (?!.*\bcombat\b)"),  # what is suggested can be played
    ],
)
def test_a_game_that_cannot_be_played_is_reported_in_one_line(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^game='{name}': .*{words}[^\n]*$"):
        find_game(name)

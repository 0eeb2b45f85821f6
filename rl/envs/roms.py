"""Atari games by name: those of ale-py that one can play alone."""

from __future__ import annotations

import difflib
import re

from ale_py import roms

TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""Games that ale-py ships and that nobody can play alone. Its emulator ends the whole process on them."""


def atari_games() -> list[str]:
    """The names of all games that can be played, sorted: ``["adventure", "air_raid", ...]``."""
    return sorted(set(roms.get_all_rom_ids()) - TWO_PLAYERS)


def find_game(name: str) -> str:
    """The name that ale-py gives a game.

    Args:
        name: In any spelling: "space_invaders", "SpaceInvaders", "ALE/SpaceInvaders-v5",
            "SpaceInvadersNoFrameskip-v4". Only the game is taken from it, no setting: sticky actions and frame
            skip are arguments of `rl.envs.atari.AtariVecEnv`, whatever the version.

    Returns:
        One of `atari_games`.

    Raises:
        ValueError: If there is no such game; the message names the closest ones.
    """
    plain = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name.removeprefix("ALE/"))
    key = re.sub(r"[^a-z0-9]", "", plain.lower())
    games = {game.replace("_", ""): game for game in roms.get_all_rom_ids()}
    found = games.get(key)
    if found in TWO_PLAYERS:
        raise ValueError(f"game={name!r}: takes two players; all other games of ale-py can be played")
    if found is None:
        close = [games[match] for match in difflib.get_close_matches(key, sorted(games), n=3, cutoff=0.5)]
        hint = f"the closest are {', '.join(close)}" if close else "rl.envs.roms.atari_games() lists all of them"
        raise ValueError(f"game={name!r}: there is no such Atari game; {hint}")
    return found

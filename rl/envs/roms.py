"""Find Atari games by name: those of ale-py for a single player."""

from __future__ import annotations

import difflib
import re

from ale_py import roms

TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""Games of ale-py for two players. Its emulator ends the whole process when it opens them."""


class ForTwoPlayers(ValueError):
    """The game is one of `TWO_PLAYERS`."""


def atari_games() -> list[str]:
    """Return the names of all single-player games, sorted.

    Example:
        >>> atari_games()[:2]
        ['adventure', 'air_raid']
    """
    return sorted(set(roms.get_all_rom_ids()) - TWO_PLAYERS)


def find_game(name: str) -> str:
    """Return the name that ale-py gives a game, one of `atari_games`; raise `ValueError` for other games.

    All spellings are accepted: "space_invaders", "SpaceInvaders", "ALE/SpaceInvaders-v5". Versions have no effect:
    sticky actions and frame skip are arguments of `rl.envs.atari.AtariVecEnv`.

    Example:
        >>> find_game("SpaceInvadersNoFrameskip-v4")
        'space_invaders'
    """
    plain = re.sub(r"(NoFrameskip|Deterministic)?(-v\d+)?$", "", name.removeprefix("ALE/"))
    key = re.sub(r"[^a-z0-9]", "", plain.lower())
    games = {game.replace("_", ""): game for game in roms.get_all_rom_ids()}
    found = games.get(key)
    if found in TWO_PLAYERS:
        raise ForTwoPlayers(f"game={name!r}: is for two players, must be one of rl.envs.roms.atari_games()")
    if found is None:
        single = [plain for plain, game in sorted(games.items()) if game not in TWO_PLAYERS]
        close = [games[match] for match in difflib.get_close_matches(key, single, n=3, cutoff=0.5)]
        hint = f"the closest are {', '.join(close)}" if close else "rl.envs.roms.atari_games() lists all of them"
        raise ValueError(f"game={name!r}: this Atari game does not exist; {hint}")
    return found

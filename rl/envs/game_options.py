"""Options of the environments, their ranges, and the kinds of games that each is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from coordconv_apps.utils.argument_checks import FRACTION, POSITIVE_INT, Allowed, int_up_to
from rl.envs.catch import BALLS, GRID, PADDLE

Kind = Literal["catch", "atari", "gymnasium"]

MAX_ENVS, MAX_THREADS = 10_000, 1000
"""Upper limits of the numbers of environments and threads: no signal ends the call that creates them."""

MAX_FRAME_SKIP, MAX_NOOPS = 1000, 10_000
"""Upper limits of ``frame_skip`` and ``noop_max``: the emulator plays these frames in one call that no signal ends."""


@dataclass(frozen=True)
class GameOptions:
    """Options of the environments.

    Options not listed are those of `rl.envs.atari.AtariVecEnv` and `rl.envs.catch.CatchVecEnv`.

    Args:
        frame_stack: Number of frames in an observation. None: 4 for Atari games, 1 for others.
        render_mode: Atari: "rgb_array" to render in colour. Other games always render if they can.
        processes: Gymnasium: whether each environment runs in its own process. This is faster for environments that
            take longer than the transfer of their observations, such as CarRacing.
        arguments: Gymnasium: arguments of the environment, such as ``continuous: false`` for CarRacing. Atari: ``mode``
            and ``difficulty`` of the game, which is slower than the default ones.
    """

    episodic_life: bool = True
    clip_rewards: bool = True
    frame_skip: int = 4
    frame_stack: int | None = None
    noop_max: int = 30
    repeat_action_probability: float = 0.0
    full_action_space: bool = False
    image_size: int = 84
    max_episode_steps: int | None = 27_000
    num_threads: int = 0
    render_mode: Literal["rgb_array"] | None = None
    balls: int = BALLS
    paddle: int = PADDLE
    processes: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)


DEFAULTS = GameOptions()

_ONLY_FOR: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("frame_skip", "noop_max", "repeat_action_probability", "num_threads"), ("atari",)),
    **dict.fromkeys(("full_action_space", "image_size"), ("atari",)),
    **dict.fromkeys(("balls", "paddle"), ("catch",)),
    "processes": ("gymnasium",),
    "arguments": ("gymnasium", "atari"),
}
"""Options that some kinds of games have. Those of lives, rewards and pictures are left out: evaluations set them."""

_GAMES: dict[Kind, str] = {"catch": "Catch", "atari": "Atari games", "gymnasium": "Gymnasium environments"}
_OF_THE_TASK = ("full_action_space", "image_size", "arguments")

RANGES: dict[str, Allowed] = {
    "frame_skip": int_up_to(MAX_FRAME_SKIP),
    "noop_max": (lambda value: 0 <= value <= MAX_NOOPS, f"an integer from 0 to {MAX_NOOPS}"),
    "num_threads": (lambda value: 0 <= value <= MAX_THREADS, f"an integer from 0 to {MAX_THREADS}"),
    "balls": POSITIVE_INT,
    "repeat_action_probability": FRACTION,
    "paddle": int_up_to(GRID - 1),
}
"""Allowed values of options, whichever game they are for."""


def check_kind(game: str, kind: Kind, options: GameOptions) -> None:
    """Raise `ValueError` for an option that this kind of game would ignore, unless it has its default value.

    >>> check_kind("pong", "atari", GameOptions(balls=3))
    Traceback (most recent call last):
        ...
    ValueError: data.balls=3: is for Catch only; model.game=pong would ignore it
    """
    for name, value in vars(options).items():
        kinds = _ONLY_FOR.get(name, (kind,))
        if kind not in kinds and value != getattr(DEFAULTS, name):
            prefix, games = "model" if name in _OF_THE_TASK else "data", " and ".join(_GAMES[each] for each in kinds)
            raise ValueError(f"{prefix}.{name}={value}: is for {games} only; model.game={game} would ignore it")
    if kind == "atari" and options.arguments and options.num_threads:
        mode = f"model.arguments={options.arguments}"
        raise ValueError(f"data.num_threads={options.num_threads}: must be 0 with {mode}: games in a mode take turns")

"""Open environments by name: the built-in Catch, every Atari game, and Gymnasium environments with images.

All are Stable-Baselines3 `VecEnv`s whose infos have an entry ``episode`` at the end of a game.
"""

from __future__ import annotations

import difflib
import importlib
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

from coordconv_apps.training.signals import STOPPING_SIGNALS
from coordconv_apps.utils.argument_checks import check_at_least
from coordconv_apps.utils.errors import one_line
from rl.envs.actions import GameActions
from rl.envs.catch import GYMNASIUM_ID, CatchVecEnv
from rl.envs.checks import BrokenEnvironment, GuardedVecEnv
from rl.envs.game_options import DEFAULTS, GameOptions, Kind, check_kind
from rl.envs.images import is_large, prepare_observations
from rl.space_json import space_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gymnasium.envs.registration import EnvSpec
    from stable_baselines3.common.vec_env import VecEnv

_MINIGRID = ("MiniGrid-", "BabyAI-")


def make_envs(game: str, num_envs: int, seed: int | None = None, **options: Any) -> VecEnv:  # noqa: ANN401  # of many types
    """Make a vector of environments.

    Args:
        game: "catch"; an Atari game in any spelling, such as ``pong`` or ``ALE/Pong-v5``; or the name of a Gymnasium
            environment whose observations are images, such as ``CarRacing-v3``, or a Dict of images and vectors.
            MiniGrid's show the whole grid. Floating-point images are scaled from the bounds of their space to 0 to 255.
        num_envs: Number of environments.
        seed: Environment ``i`` is seeded with ``seed + i``. None: random seeds.
        **options: Fields of `GameOptions`.

    Returns:
        Environments whose observations are uint8 images with their channels first, or Dicts with such images.

    Raises:
        ValueError: The game does not exist or shows no images, or an option is out of its range, or for other games.
        ImportError: The game needs a package that is not installed.

    Example:
        >>> make_envs("catch", 3, seed=0, paddle=5).reset().shape
        (3, 1, 84, 84)
    """
    chosen = GameOptions(**options)
    check_at_least(1, "data.", num_envs=num_envs)
    if chosen.frame_stack is not None:
        check_at_least(1, "model.", frame_stack=chosen.frame_stack)
    kind = find_kind(game)
    check_kind(game, kind, chosen)
    return _MAKERS[kind](game, num_envs, seed, chosen)


def open_envs(game: str, num_envs: int, seed: int, options: GameOptions = DEFAULTS, first: int = 0) -> GuardedVecEnv:
    """Open environments for a policy: images have their channels first, and discrete actions count from 0.

    Each step is checked, see `rl.envs.checks.GuardedVecEnv`.

    Arguments and errors are those of `make_envs`; ``first`` is the number of the first environment, for messages.
    """
    return GuardedVecEnv(GameActions(make_envs(game, num_envs, seed, **vars(options))), game, first)


def find_kind(game: str) -> Kind:
    """Return the kind of game that a name stands for; raise the errors of `make_envs` if there is no such game."""
    from rl.envs.roms import ForTwoPlayers, find_game

    problem = "this game does not exist"
    if game.lower() == "catch" or game == GYMNASIUM_ID:
        return "catch"
    if game.rpartition("/")[0] in ("", "ALE"):
        try:
            find_game(game)
        except ForTwoPlayers:
            problem = "this game is for two players"
        except ValueError:
            pass
        else:
            return "atari"
    if game.startswith(_MINIGRID):
        try:
            importlib.import_module("minigrid")  # registers its environments
        except ImportError as error:
            raise ImportError(f"model.game={game}: needs the package minigrid: pip install minigrid") from error
    if game in _gymnasium_games() or ":" in game:
        return "gymnasium"
    raise ValueError(f"model.game={game}: {problem}; {_suggestion(game)}")


def _gymnasium_games() -> list[str]:
    """Return the registered names without ale-py's, which repeat the Atari games and include two-player games."""
    return [name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith("ale_py")]


def _suggestion(game: str) -> str:
    from rl.envs.roms import atari_games

    names = {name.lower(): name for name in ["catch", *atari_games(), *_gymnasium_games()]}
    versionless = {re.sub(r"-v\d+$", "", name): full for name, full in names.items()}
    close = difflib.get_close_matches(game.lower(), [*versionless, *names], n=3, cutoff=0.5)
    if found := dict.fromkeys((versionless | names)[name] for name in close):
        return f"the closest are {', '.join(found)}; a game of your own is module:name"
    return (
        "must be catch, an Atari game such as pong, a Gymnasium environment such as CarRacing-v3, or module:name for a"
        " game of your own"
    )


def _make_catch(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    return _stack_frames(CatchVecEnv(num_envs, seed, balls=options.balls, paddle=options.paddle), options.frame_stack)


def _make_atari(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    from rl.envs.atari import AtariVecEnv
    from rl.envs.atari_modes import make_atari_modes

    frames = 4 if options.frame_stack is None else options.frame_stack
    if options.arguments:
        return _stack_frames(make_atari_modes(game, num_envs, seed, options), frames)
    others = ("balls", "paddle", "processes", "arguments")
    arguments = {name: value for name, value in vars(options).items() if name not in others}
    arguments["frame_stack"] = frames
    return AtariVecEnv(game, num_envs, seed, **arguments)


def _make_gymnasium(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    arguments = options.arguments
    try:
        module, _, name = game.rpartition(":")
        if module:
            importlib.import_module(module)  # registers its environments
        spec = gymnasium.spec(name)  # processes may not know the name
        # Make one in this process first, so that errors carry their own message instead of the end of a process.
        first = _make_one(spec, arguments)
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ImportError(f"model.game={game}: {one_line(error)}") from error
    except (gymnasium.error.Error, TypeError, AssertionError) as error:
        raise ValueError(f"model.game={game} with model.arguments={arguments}: {one_line(error)}") from error
    space, modes = first.observation_space, first.metadata.get("render_modes", ())
    first.close()
    _check_observations(game, space)
    if "rgb_array" in modes:
        arguments = {"render_mode": "rgb_array", **arguments}
    make: Callable[[], gymnasium.Env[Any, Any]] = partial(_make_one, spec, arguments, own_process=options.processes)
    makers = [make] * num_envs
    try:
        envs = SubprocVecEnv(makers) if options.processes else DummyVecEnv(makers)
    except (EOFError, ConnectionError) as error:
        if not options.processes:
            raise
        words = "its process ended at the start, for the reason printed above"
        raise BrokenEnvironment(f"model.game={game}: {words} ({one_line(error)})") from error
    envs.seed(seed)
    return _stack_frames(envs, options.frame_stack)


def _make_one(spec: EnvSpec, arguments: Mapping[str, Any], *, own_process: bool = False) -> gymnasium.Env[Any, Any]:
    if own_process:
        # Ctrl-C and SLURM signal every process, but the main one must save before it ends the others (with SIGTERM).
        for number in {*STOPPING_SIGNALS} - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
    game = gymnasium.make(spec, **arguments)
    if spec.id.startswith(_MINIGRID):
        # Images of the whole grid, 8 pixels per cell, instead of codes of the visible cells.
        wrappers = importlib.import_module("minigrid.wrappers")
        game = wrappers.ImgObsWrapper(wrappers.RGBImgObsWrapper(game))
    return Monitor(prepare_observations(game))


def _stack_frames(envs: VecEnv, frames: int | None) -> VecEnv:
    """Stack the latest values of each part of observations: images by channels, vectors along their last axis."""
    if frames in (None, 1):
        return envs
    space = envs.observation_space
    if not isinstance(space, spaces.Dict):
        return VecFrameStack(envs, frames, channels_order="first")  # Stable-Baselines3 would guess the order
    for key, part in space.spaces.items():
        if not (isinstance(part, spaces.Box) and part.shape):
            raise ValueError(
                f"model.frame_stack={frames}: must be 1 or null, since observations[{key!r}] is {one_line(str(part))}:"
                " only a Box with axes can be stacked"
            )
    order = {key: "first" if is_image_space(cast("spaces.Box", part)) else "last" for key, part in space.spaces.items()}
    return VecFrameStack(envs, frames, channels_order=order)


_IMAGE = "uint8 (height, width, channels) or (channels, height, width) of 0 to 255"


def _check_observations(game: str, space: spaces.Space[Any]) -> None:
    """Raise `ValueError` for observations that a policy of `rl.tasks` cannot process."""
    name = f"model.game={game}: observations"
    if isinstance(space, spaces.Box) and is_image_space(space):
        return
    if not isinstance(space, spaces.Dict):
        raise ValueError(
            f"{name} are {one_line(str(space))}: must be one image, {_IMAGE}, or a Dict of images and vectors"
        )
    space_to_json(space, name)  # raises for parts that neither Stable-Baselines3 nor a saved policy can have
    for key, part in space.spaces.items():
        if isinstance(part, spaces.Discrete | spaces.MultiDiscrete) and np.any(part.start):
            raise ValueError(f"{name}[{key!r}]={one_line(str(part))}: must count from 0")
        if isinstance(part, spaces.Box) and is_large(part) and not is_image_space(part):
            raise ValueError(
                f"{name}[{key!r}]={one_line(str(part))}: an image must be {_IMAGE}, or of floating-point numbers whose"
                " bounds are finite and the same for all pixels"
            )
    if not any(is_image_space(cast("spaces.Box", part)) for part in space.spaces.values()):
        raise ValueError(f"{name} are {one_line(str(space))}: must have at least one image, {_IMAGE}")


_MAKERS = {"catch": _make_catch, "atari": _make_atari, "gymnasium": _make_gymnasium}

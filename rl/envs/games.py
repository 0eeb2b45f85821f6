"""Games by name: the built-in one, all of Atari's, and every Gymnasium environment that shows images.

All of them come as Stable-Baselines3 `VecEnv`s whose infos have an entry ``episode`` when a game is over.
"""

from __future__ import annotations

import difflib
import importlib
import re
import signal
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecTransposeImage

from rl.envs.catch import BALLS, GRID, GYMNASIUM_ID, PADDLE, CatchVecEnv
from rl.envs.checks import GuardedVecEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gymnasium.envs.registration import EnvSpec
    from stable_baselines3.common.vec_env import VecEnv

Kind = Literal["catch", "atari", "gymnasium"]

_MINIGRID = ("MiniGrid-", "BabyAI-")


@dataclass(frozen=True)
class GameOptions:
    """How games are played. What an option says of one kind of game leaves the others as they are.

    Args:
        episodic_life: Atari: a lost life ends the episode for the learner, while the game goes on.
        clip_rewards: Atari: the learner gets the sign of rewards. Scores are of unclipped ones.
        frame_skip: Atari: frames for which an action is held.
        frame_stack: Latest frames that an observation holds. None: 4 for Atari's games, 1 for others.
        noop_max: Atari: most no-op steps at the start of a game; their number is random.
        repeat_action_probability: Atari: how likely a frame repeats the last action ("sticky actions"), in [0, 1]. Of
            ``ALE/...-v5`` too it is what is given here, where Gymnasium's own has 0.25.
        full_action_space: Atari: all 18 actions, in place of those that do something in the game.
        image_size: Atari: height and width of observations, in pixels.
        max_episode_steps: Atari: steps after which a game is cut off; None: never.
        num_threads: Atari: games that are stepped at the same time; 0: all of them.
        render_mode: Atari: "rgb_array" to have pictures in colour besides observations, which takes a second emulator
            for each game. Other games have their pictures in any case, where they make some.
        balls: Catch: balls in an episode.
        paddle: Catch: width of the paddle, in cells of 7 pixels.
        processes: Gymnasium: each game in a process of its own. For games slower than what it costs to pass pictures
            between processes, such as CarRacing.
        arguments: Gymnasium: arguments of the environment, such as ``continuous: false`` of CarRacing.
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

    def for_evaluation(self) -> GameOptions:
        """The same games as they are played for a score: whole games, rewards as they are."""
        return replace(self, episodic_life=False, clip_rewards=False)


def make_envs(
    game: str, num_envs: int, seed: int | None = None, options: GameOptions | None = None, **changes: object
) -> VecEnv:
    """Makes an environment of a number of games.

    Args:
        game: "catch"; a game of Atari's in any spelling, such as ``pong`` or ``ALE/Pong-v5``; or the name of a
            Gymnasium environment whose observations are images, such as ``CarRacing-v3``. Those of MiniGrid show the
            whole grid.
        num_envs: How many.
        seed: Game ``i`` is seeded with ``seed + i``. None: anything.
        options: How they are played.
        changes: Options by name, in place of those.

    Returns:
        The games; uint8 observations in the order of axes that the game has.

    Raises:
        ValueError: There is no such game or option, the game shows no images, or an option is out of its range.
        ImportError: The game is of a package that is not installed.
    """
    chosen = _changed(options or GameOptions(), changes)
    if num_envs < 1:
        raise ValueError(f"data.num_envs={num_envs}: must be an integer of at least 1")
    if chosen.frame_stack is not None and chosen.frame_stack < 1:
        raise ValueError(f"model.frame_stack={chosen.frame_stack}: must be an integer of at least 1, or null")
    return _MAKERS[find_kind(game)](game, num_envs, seed, chosen)


def open_envs(game: str, num_envs: int, seed: int, options: Mapping[str, Any], first: int = 0) -> GuardedVecEnv:
    """Open environments whose observations are one image each, channels first.

    Args:
        game: Name of the game, as for `make_envs`.
        num_envs: Number of environments.
        seed: Environment ``i`` is seeded with ``seed + i``.
        options: `GameOptions` by name.
        first: Number of the first of these environments, for messages.

    Returns:
        The environments. Where one of them fails they raise `rl.envs.checks.BrokenEnvironment`.

    Raises:
        ValueError: The game does not exist, or its observations are not images.
        ImportError: The game needs a package that is not installed.
    """
    env = make_envs(game, num_envs, seed, **options)
    space = env.observation_space
    if not (isinstance(space, spaces.Box) and is_image_space(space)):
        env.close()
        raise ValueError(
            f"model.game={game}: observations are {_one_line(space)}: must be one image, uint8 of 0 to 255"
        )
    if not is_image_space_channels_first(space):
        env = VecTransposeImage(env)
    return GuardedVecEnv(env, game, first)


_AT_LEAST = {"frame_skip": 1, "noop_max": 0, "num_threads": 0, "balls": 1}


def check_options(options: Mapping[str, Any]) -> None:
    """Check the ranges of options, whichever game they are for.

    Args:
        options: `GameOptions` by name, None for the default; other names are ignored.

    Raises:
        ValueError: An option is out of its range.
    """
    for name, least in _AT_LEAST.items():
        value = options[name]
        if value is not None and value < least:
            raise ValueError(f"data.{name}={value}: must be an integer of at least {least}")
    probability, paddle = options["repeat_action_probability"], options["paddle"]
    if not 0 <= probability <= 1:
        raise ValueError(f"data.repeat_action_probability={probability}: must be in [0, 1]")
    if paddle is not None and not 1 <= paddle < GRID:
        raise ValueError(f"data.paddle={paddle}: must be an integer from 1 to {GRID - 1}")


def find_kind(game: str) -> Kind:
    """Which kind of game a name is of.

    Args:
        game: As `make_envs` takes it.

    Raises:
        ValueError: There is no such game.
        ImportError: It is of a package that is not installed.
    """
    from rl.envs.roms import find_game

    if game.lower() == "catch" or game == GYMNASIUM_ID:
        return "catch"
    if game.rpartition("/")[0] in ("", "ALE"):
        try:
            find_game(game)
        except ValueError:
            pass
        else:
            return "atari"
    if game.startswith(_MINIGRID):
        _register_minigrid(game)
    if game in _gymnasium_games() or ":" in game:
        return "gymnasium"
    raise ValueError(f"model.game={game}: no such game; {_closest(game)}")


def game_names() -> list[str]:
    """All games that have a name here: Catch, Atari's, and Gymnasium's that are installed, whatever they show."""
    from rl.envs.roms import atari_games

    return ["catch", *atari_games(), *_gymnasium_games()]


def _gymnasium_games() -> list[str]:
    """Without ale-py's: those are Atari's games once more, and some that take two players end the whole process."""
    return [name for name, spec in gymnasium.registry.items() if not str(spec.entry_point).startswith("ale_py")]


def _closest(game: str) -> str:
    names = {name.lower(): name for name in game_names()}
    versionless = {re.sub(r"-v\d+$", "", name): full for name, full in names.items()}
    close = difflib.get_close_matches(game.lower(), [*versionless, *names], n=3, cutoff=0.5)
    if found := dict.fromkeys((versionless | names)[name] for name in close):
        return f"the closest are {', '.join(found)}"
    return "must be catch, a game of Atari's such as pong, or a Gymnasium environment such as CarRacing-v3"


def _changed(options: GameOptions, changes: Mapping[str, Any]) -> GameOptions:
    known = [option.name for option in fields(GameOptions)]
    for name in changes:
        if name not in known:
            raise ValueError(f"{name}: no option of games; must be one of {', '.join(known)}")
    return replace(options, **changes)


def _make_catch(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    return _stacked(CatchVecEnv(num_envs, seed, balls=options.balls, paddle=options.paddle), options)


def _make_atari(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    from rl.envs.atari import AtariVecEnv
    from rl.envs.roms import find_game

    return AtariVecEnv(
        find_game(game),
        num_envs,
        seed,
        episodic_life=options.episodic_life,
        clip_rewards=options.clip_rewards,
        frame_skip=options.frame_skip,
        frame_stack=4 if options.frame_stack is None else options.frame_stack,
        noop_max=options.noop_max,
        repeat_action_probability=options.repeat_action_probability,
        full_action_space=options.full_action_space,
        image_size=options.image_size,
        max_episode_steps=options.max_episode_steps,
        num_threads=options.num_threads,
        render_mode=options.render_mode,
    )


def _make_gymnasium(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    arguments = options.arguments
    try:
        module, _, name = game.rpartition(":")
        if module:
            importlib.import_module(module)  # registers its environments
        spec = gymnasium.spec(name)  # processes may not know the name
        # One first, here: what is wrong with a game is then told in its own words, and not by a process that ends.
        first = _make_one(spec, arguments)
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise ImportError(f"model.game={game}: {_one_line(error)}") from error
    except (gymnasium.error.Error, TypeError) as error:
        raise ValueError(f"model.game={game} with model.arguments={arguments}: {_one_line(error)}") from error
    space, modes = first.observation_space, first.metadata.get("render_modes", ())
    first.close()
    if not _shows_images(space):
        raise ValueError(
            f"model.game={game}: observations are {_one_line(space)}, must be images, uint8 (height, width, channels)"
            " or (channels, height, width) of 0 to 255, or a dictionary with one"
        )
    if "rgb_array" in modes:
        arguments = {"render_mode": "rgb_array", **arguments}
    make: Callable[[], gymnasium.Env[Any, Any]] = partial(_make_one, spec, arguments, own_process=options.processes)
    makers = [make] * num_envs
    envs = SubprocVecEnv(makers) if options.processes else DummyVecEnv(makers)
    envs.seed(seed)
    return _stacked(envs, options)


def _make_one(spec: EnvSpec, arguments: Mapping[str, Any], *, own_process: bool = False) -> gymnasium.Env[Any, Any]:
    if own_process:  # a terminal interrupts every process: the first one ends the others when it has saved
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    game = gymnasium.make(spec, **arguments)
    return Monitor(_whole_grid(game) if spec.id.startswith(_MINIGRID) else game)


def _stacked(envs: VecEnv, options: GameOptions) -> VecEnv:
    return envs if options.frame_stack in (None, 1) else VecFrameStack(envs, options.frame_stack)


def _shows_images(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Dict):
        return any(is_image_space(part) for part in space.values())
    return is_image_space(space)


def _register_minigrid(game: str) -> None:
    try:
        importlib.import_module("minigrid")  # registers its environments
    except ImportError as error:
        raise ImportError(f"model.game={game}: needs the package minigrid: pip install minigrid") from error


def _whole_grid(game: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """MiniGrid with pictures of all of the grid, 8 pixels to a cell, in place of codes of the cells in sight."""
    wrappers = importlib.import_module("minigrid.wrappers")
    pictures: gymnasium.Env[Any, Any] = wrappers.ImgObsWrapper(wrappers.RGBImgObsWrapper(game))
    return pictures


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


_MAKERS = {"catch": _make_catch, "atari": _make_atari, "gymnasium": _make_gymnasium}

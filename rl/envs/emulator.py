"""One Atari game on an ale-py emulator, with its score, lives and frame counts."""

from __future__ import annotations

import functools
import math
import secrets
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

NO_LIMIT = 2**30
"""Frame limit of the emulator. It is never reached, since the emulator would end a step without drawing its frame."""

_FULL_STRENGTH = np.ones(1, np.float32)  # paddle strength, which only continuous actions lower
_ACTIONS = [np.array([action], np.int32) for action in range(18)]


@functools.cache
def starting_frames(game: str) -> int:
    """Return how many frames the emulator plays by itself at the start of a game, and counts: usually 0."""
    ale = _loaded(game)
    ale.reset_game()
    return int(ale.getEpisodeFrameNumber())


@functools.cache
def screen_size(game: str) -> tuple[int, int]:
    """Return height and width of a game's screen in pixels: 210 and 160 for most games."""
    height, width = _loaded(game).getScreenDims()
    return int(height), int(width)


@functools.cache
def available_settings(game: str) -> dict[str, list[int]]:
    """Return the modes and difficulties of a game's console, the default ones first.

    Example:
        >>> available_settings("pong")
        {'mode': [0, 1], 'difficulty': [0, 1, 2, 3]}
    """
    ale = _loaded(game)
    return {"mode": list(ale.getAvailableModes()), "difficulty": list(ale.getAvailableDifficulties())}


def _loaded(game: str) -> ALEInterface:
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.loadROM(cast("Any", roms.get_rom_path(game)))
    return ale


def _open_emulator(name: str, frame_skip: int, options: dict[str, Any]) -> AtariVectorEnv:
    return AtariVectorEnv(
        name,
        1,
        frameskip=frame_skip,
        max_num_frames_per_episode=NO_LIMIT,
        autoreset_mode=AutoresetMode.NEXT_STEP,
        # `Game` and `AtariVecEnv` count scores and lives, and play the first actions of an episode.
        reward_clipping=False,
        episodic_life=False,
        use_fire_reset=False,
        **options,
    )


class Game:
    """One game, stepped in its own thread: `send` an action, then `receive` the result.

    Args:
        name: Name in ale-py.
        uncounted: Frames at the start of a game that do not count, see `starting_frames`.
        steps: Steps after which a game is cut off, or None.
        episodic_life: Whether to report lost lives.
        clip_rewards: Whether the learner gets the sign of each reward; `reward` and `score` are not clipped.
        frame_skip: Number of frames for which an action is repeated.
        options: Other arguments of `AtariVectorEnv`.
    """

    def __init__(
        self,
        name: str,
        uncounted: int,
        *,
        steps: int | None,
        episodic_life: bool,
        clip_rewards: bool = True,
        frame_skip: int,
        **options: Any,  # noqa: ANN401  # passed on
    ) -> None:
        self.frame_skip, self.options = frame_skip, options
        self._emulator = _open_emulator(name, frame_skip, options)
        self._ale = self._emulator.ale
        self.uncounted, self.episodic_life, self.clip_rewards = uncounted, episodic_life, clip_rewards
        self.frame_limit = math.inf if steps is None else steps * frame_skip
        self._observation: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.reward = self.score = 0.0
        self.lives = self.frames = self.all_frames = 0
        self.over = self.cut_off = self.life_lost = False
        self._restarting = False
        self.age = 0

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions, as gymnasium's Atari environments do."""
        return [action.name for action in self._ale.get_action_set()]

    @property
    def finished(self) -> bool:
        """Whether the game has ended, not only a life."""
        return self.over or self.cut_off

    @property
    def length(self) -> int:
        """Number of frames of this game, as Stable-Baselines3's Monitor counts them below `AtariWrapper`."""
        return self.frames - self.uncounted

    def restart(self, seed: int | None) -> None:
        """Start a new game, whatever the state of this one, and wait for it."""
        observation, infos = self._emulator.reset(seed=None if seed is None else seed % 2**31)
        self._restarting = True
        self._take(cast("NDArray[np.uint8]", observation), infos, 0.0, False)

    def send(self, action: int) -> None:
        """Start a step. After the end of a game, any action starts a new game."""
        self._restarting = self.over
        self._ale.send(_ACTIONS[action], _FULL_STRENGTH)

    def receive(self) -> None:
        """Wait for the step."""
        observation, rewards, over, _, infos = self._ale.recv()
        self._take(observation, infos, float(rewards[0]), bool(over[0]))

    def _take(self, observation: NDArray[np.uint8], infos: dict[str, Any], reward: float, over: bool) -> None:
        self._observation = observation[0]
        lives = int(infos["lives"][0])
        # Some games report 0 lives for a while before they end. Only the end counts, as in Stable-Baselines3's
        # EpisodicLifeEnv.
        self.life_lost = self.episodic_life and not self._restarting and 0 < lives < self.lives
        self.lives = lives
        self.frames, self.all_frames = int(infos["episode_frame_number"][0]), int(infos["frame_number"][0])
        self.reward, self.score = reward, 0.0 if self._restarting else self.score + reward
        self.over, self.cut_off = over, self.frames >= self.frame_limit
        self._restarting = False

    def observe(self, *, first: bool = False) -> NDArray[np.uint8]:
        """Return the observation of this step, uint8 ``(stack, height, width)``, the newest frame last.

        Call it once per step that the learner sees. Frames from before the start of an episode, which ``first`` marks,
        are black in this and the following observations.
        """
        stack = len(self._observation)
        self.age = 1 if first else min(self.age + 1, stack)
        self._observation[: stack - self.age] = 0
        return self._observation

    def info(self) -> dict[str, Any]:
        """Return the info of a step, as gymnasium's Atari environments do."""
        return {"lives": self.lives, "episode_frame_number": self.frames, "frame_number": self.all_frames}


class ColourGame(Game):
    """A game with frames in colour, which a second emulator renders with the same seeds and actions.

    An emulator returns its frames either in grey or in colour. Its randomness comes from two generators of its own,
    which only its seed, steps and resets advance, so that both emulators play the same game. ``picture`` is the frame
    of the latest step, uint8 ``(height, width, 3)``, at the size of the screen.
    """

    def __init__(self, name: str, uncounted: int, **options: Any) -> None:  # noqa: ANN401  # of `Game`
        super().__init__(name, uncounted, **options)
        height, width = screen_size(name)
        in_colour = {"grayscale": False, "stack_num": 1, "img_height": height, "img_width": width}
        self._second = _open_emulator(name, self.frame_skip, self.options | in_colour)
        self.picture: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
        self._seeded = False

    def restart(self, seed: int | None) -> None:
        """Start a new game, whatever the state of this one, and wait for it."""
        if seed is None and not self._seeded:
            seed = secrets.randbelow(2**31)  # otherwise each emulator would choose its own seed
        self._seeded = True
        super().restart(seed)
        observation, infos = self._second.reset(seed=None if seed is None else seed % 2**31)
        self._take_picture(cast("NDArray[np.uint8]", observation), infos)

    def send(self, action: int) -> None:
        """Start a step of both emulators."""
        super().send(action)
        self._second.ale.send(_ACTIONS[action], _FULL_STRENGTH)

    def receive(self) -> None:
        """Wait for both emulators."""
        super().receive()
        observation, _, _, _, infos = self._second.ale.recv()
        self._take_picture(observation, infos)

    def _take_picture(self, observation: NDArray[np.uint8], infos: dict[str, Any]) -> None:
        assert (infos["lives"][0], infos["frame_number"][0]) == (self.lives, self.all_frames), "different games"
        self.picture = observation[0, -1]


def opening(game: Game, first_actions: Sequence[int], no_op: int) -> Iterator[int]:
    """Yield the actions that open an episode, while the caller steps the game (SB3's FireResetEnv).

    ``first_actions`` are FIRE and the action after it; none for games without FIRE.
    """
    for action in first_actions:
        yield action
        if game.finished or game.life_lost:
            yield from _next_life(game, no_op)


def next_episode(game: Game, first_actions: Sequence[int], no_op: int) -> Iterator[int]:
    """Yield the actions between two episodes, while the caller steps the game."""
    yield from _next_life(game, no_op)
    yield from opening(game, first_actions, no_op)


def _next_life(game: Game, no_op: int) -> Iterator[int]:
    """Yield the actions from the end of a life or game to the next one (SB3's EpisodicLifeEnv)."""
    if not game.finished:
        yield no_op
    if game.over:
        yield no_op  # starts a new game
    elif game.cut_off:
        game.restart(None)

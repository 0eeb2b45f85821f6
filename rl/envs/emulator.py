"""One Atari game on an emulator of ale-py: what it shows, and what is counted about it."""

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
    from numpy.typing import NDArray

NO_LIMIT = 2**30
"""Frames. The emulator's own limit stays off: it would end a step without drawing its picture."""

_FULL_STRENGTH = np.ones(1, np.float32)  # of a paddle: only continuous actions turn it down
_ACTIONS = [np.array([action], np.int32) for action in range(18)]


@functools.cache
def starting_frames(game: str) -> int:
    """How many frames the emulator plays by itself when a game starts, which it counts as frames of the game.

    Args:
        game: A name of ale-py's, such as "name_this_game", the one with the most of them, 134. Most have none.
    """
    ale = _loaded(game)
    ale.reset_game()
    return int(ale.getEpisodeFrameNumber())


@functools.cache
def screen_size(game: str) -> tuple[int, int]:
    """Height and width of a game's screen in pixels: 210 and 160, but for a few games that are higher.

    Args:
        game: A name of ale-py's.
    """
    height, width = _loaded(game).getScreenDims()
    return int(height), int(width)


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
        # Scores, lives and what opens an episode are counted and played here.
        reward_clipping=False,
        episodic_life=False,
        use_fire_reset=False,
        **options,
    )


class Game:
    """One game, stepped in a thread of its own: `send` an action, and `receive` what came of it.

    Observations are uint8 ``(stack, height, width)``, the newest frame last.

    Args:
        name: Of ale-py's.
        uncounted: Frames at the start of a game that do not count, see `starting_frames`.
        steps: Steps after which a game is cut off, or None.
        episodic_life: Whether a lost life is to be noticed.
        frame_skip: Frames that an action is held.
        options: Further arguments of `AtariVectorEnv`.
    """

    def __init__(
        self,
        name: str,
        uncounted: int,
        *,
        steps: int | None,
        episodic_life: bool,
        frame_skip: int,
        **options: Any,  # noqa: ANN401  # passed on
    ) -> None:
        self.frame_skip, self.options = frame_skip, options
        self._emulator = _open_emulator(name, frame_skip, options)
        self._ale = self._emulator.ale
        self.uncounted, self.episodic_life = uncounted, episodic_life
        self.frame_limit = math.inf if steps is None else steps * frame_skip
        self._observation: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.reward = self.score = 0.0
        self.lives = self.frames = self.all_frames = 0
        self.over = self.cut_off = self.life_lost = False
        self._restarting = False
        self.age = 0

    def get_action_meanings(self) -> list[str]:
        """The names of the actions, as gymnasium's Atari environments give them."""
        return [action.name for action in self._ale.get_action_set()]

    @property
    def finished(self) -> bool:
        """Whether the game has ended, and not only a life."""
        return self.over or self.cut_off

    @property
    def length(self) -> int:
        """Frames of this game so far, as Stable-Baselines3's Monitor counts them below `AtariWrapper`."""
        return self.frames - self.uncounted

    def restart(self, seed: int | None) -> None:
        """Starts a new game and waits for it, whatever the state of this one."""
        observation, infos = self._emulator.reset(seed=None if seed is None else seed % 2**31)
        self._restarting = True
        self._take(cast("NDArray[np.uint8]", observation), infos, 0.0, False)

    def send(self, action: int) -> None:
        """Starts a step. After the end of a game, it starts a new game, whatever the action."""
        self._restarting = self.over
        self._ale.send(_ACTIONS[action], _FULL_STRENGTH)

    def receive(self) -> None:
        """Waits for the step that was sent."""
        observation, rewards, over, _, infos = self._ale.recv()
        self._take(observation, infos, float(rewards[0]), bool(over[0]))

    def _take(self, observation: NDArray[np.uint8], infos: dict[str, Any], reward: float, over: bool) -> None:
        self._observation = observation[0]
        lives = int(infos["lives"][0])
        # A few games show 0 lives for a while before they are over: only the end itself counts then, as in
        # Stable-Baselines3's EpisodicLifeEnv.
        self.life_lost = self.episodic_life and not self._restarting and 0 < lives < self.lives
        self.lives = lives
        self.frames, self.all_frames = int(infos["episode_frame_number"][0]), int(infos["frame_number"][0])
        self.reward, self.score = reward, 0.0 if self._restarting else self.score + reward
        self.over, self.cut_off = over, self.frames >= self.frame_limit
        self._restarting = False

    def observe(self, *, first: bool = False) -> NDArray[np.uint8]:
        """The observation of this step; to be asked for once per step that the learner sees.

        Args:
            first: Whether an episode starts with it: all frames but the newest are black then, and as many in
                the observations after it as lie before the start.
        """
        stack = len(self._observation)
        self.age = 1 if first else min(self.age + 1, stack)
        self._observation[: stack - self.age] = 0
        return self._observation

    def info(self) -> dict[str, Any]:
        """What gymnasium's Atari environments say about a step."""
        return {"lives": self.lives, "episode_frame_number": self.frames, "frame_number": self.all_frames}


class ColourGame(Game):
    """A game with pictures in colour: a second emulator plays it too, from the same seeds and by the same actions.

    An emulator gives its pictures either in grey or in colour. All that is random in it is drawn by two generators of
    its own, which a seed sets and nothing but its own steps and resets moves on: so both play the same game.

    Args:
        name: As of `Game`.
        uncounted: Likewise.
        options: Further arguments of `Game`.

    Attributes:
        picture: What the latest step shows, uint8 ``(height, width, 3)``, of `screen_size`.
    """

    def __init__(self, name: str, uncounted: int, **options: Any) -> None:  # noqa: ANN401  # of `Game`
        super().__init__(name, uncounted, **options)
        height, width = screen_size(name)
        in_colour = {"grayscale": False, "stack_num": 1, "img_height": height, "img_width": width}
        self._second = _open_emulator(name, self.frame_skip, self.options | in_colour)
        self.picture: NDArray[np.uint8] = np.zeros((height, width, 3), np.uint8)
        self._seeded = False

    def restart(self, seed: int | None) -> None:
        """Starts a new game and waits for it, whatever the state of this one."""
        if seed is None and not self._seeded:
            seed = secrets.randbelow(2**31)  # without any, each of the two emulators would draw one for itself
        self._seeded = True
        super().restart(seed)
        observation, infos = self._second.reset(seed=None if seed is None else seed % 2**31)
        self._look(cast("NDArray[np.uint8]", observation), infos)

    def send(self, action: int) -> None:
        """Starts a step of both emulators."""
        super().send(action)
        self._second.ale.send(_ACTIONS[action], _FULL_STRENGTH)

    def receive(self) -> None:
        """Waits for both."""
        super().receive()
        observation, _, _, _, infos = self._second.ale.recv()
        self._look(observation, infos)

    def _look(self, observation: NDArray[np.uint8], infos: dict[str, Any]) -> None:
        assert (infos["lives"][0], infos["frame_number"][0]) == (self.lives, self.all_frames), "another game"
        self.picture = observation[0, -1]

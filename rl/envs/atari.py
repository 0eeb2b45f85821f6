"""Atari games for Stable-Baselines3 on ale-py's native emulators, with the episodes of its `make_atari_env`."""

from __future__ import annotations

import time
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from coordconv_apps.utils.argument_checks import check_at_least
from rl.envs.emulator import ColourGame, Game, next_episode, opening, starting_frames
from rl.envs.game_options import MAX_FRAME_SKIP, MAX_NOOPS
from rl.envs.roms import find_game

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import gymnasium
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


SETTABLE = ("clip_rewards", "episodic_life")
"""Attributes of a game that `AtariVecEnv.set_attr` can set; they take effect with the next step."""


class AtariVecEnv(VecEnv):
    """Many Atari games at once on ale-py's native emulators, as a `VecEnv` of Stable-Baselines3 (SB3).

    Steps, rewards and episodes, and the actions between two episodes, are those of SB3's `make_atari_env` with its
    `AtariWrapper` and `VecFrameStack(4)`, without a Python environment per game. Each game runs in its own thread.
    Observations are uint8 ``(num_envs, frame_stack, image_size, image_size)`` in [0, 255], channels first, the newest
    frame last, in a new array at every step.

    With ``episodic_life``, a lost life is ``done`` for the learner while the game continues: one no-op follows, then
    FIRE and the next action if the game has FIRE, and the learner sees the observation after these. Only the end of the
    game sets ``infos[i]["episode"]``: "r", the unclipped score; "l", the length in emulator frames (not in steps), as
    Monitor counts below `AtariWrapper`; both include no-ops and hidden steps. All infos have "lives", "frame_number"
    and "episode_frame_number". Do not add a `VecMonitor`, which would count clipped rewards and single lives.

    Differences from `make_atari_env`:

    - The number of no-ops at the start of a game is 0 to ``noop_max - 1``, not 1 to 30, and the emulator draws it.
    - Frames are converted to grey before, not after, the maximum of two frames. In 150 steps of Breakout, Pong,
      Seaquest and Ms. Pacman, 99.5 to 100 % of the pixels were equal, and the others differed by up to 37.
    - The last observation of a game that ends by itself may show an older frame, since the emulator does not draw
      the final frame.
    - A game is cut off at the end of a step only, so that it may be up to ``frame_skip - 1`` frames longer.
    - `reset` always starts new games, so that seeds take effect. In `make_atari_env` it continues with the next life.
    - A game that ends in a hidden step is reported with the step before it. In `make_atari_env` its score is lost.
    - The emulator draws sticky actions, for each frame. Their distribution is the same.
    - In Air Raid, the emulator's grey differs from the grey of its colours in 98 % of the pixels (ale-py's palettes).
      SB3's `WarpFrame` converts the colours.

    Sources: Mnih et al. (2015), Methods, for the preprocessing; Machado et al. (2018), section 5, for sticky actions;
    SB3's `AtariWrapper` for the order of operations.

    Args:
        game: Any spelling that `rl.envs.roms.find_game` accepts.
        num_envs: Number of games.
        seed: Game ``i`` gets ``seed + i`` at the first `reset`. None: random seeds.
        episodic_life: Whether a lost life ends an episode. Evaluation may use it as well.
        clip_rewards: Whether the learner gets the sign of each reward.
        frame_skip: Number of frames for which an action is repeated.
        frame_stack: Number of frames in an observation, one per step.
        noop_max: A game starts with a random number of no-ops, 0 to ``noop_max - 1``. 0 and 1: none.
        repeat_action_probability: Probability of sticky actions, for every spelling of the game, although gymnasium's
            ``ALE/...-v5`` environments default to 0.25.
        full_action_space: Whether to use all 18 actions of the console instead of those that matter in this game.
        image_size: Height and width of a frame in pixels.
        max_episode_steps: Steps of ``frame_skip`` frames after which a game is cut off, no-ops included. None: never.
        use_fire_reset: Whether FIRE and the next action open an episode, in games whose second action is FIRE.
        num_threads: Number of games that are stepped at the same time; 0 for all.
        render_mode: "rgb_array" for `get_images` in colour, at the size of the game's screen. Each game then runs on a
            second emulator, because an emulator returns either grey or colour; observations do not change.

    Raises:
        ValueError: The game does not exist, or an argument is out of its range.

    Example:
        >>> env = AtariVecEnv("pong", num_envs=2, seed=0)
        >>> env.reset().shape
        (2, 4, 84, 84)
        >>> env.close()
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        seed: int | None = None,
        *,
        episodic_life: bool = True,
        clip_rewards: bool = True,
        frame_skip: int = 4,
        frame_stack: int = 4,
        noop_max: int = 30,
        repeat_action_probability: float = 0.0,
        full_action_space: bool = False,
        image_size: int = 84,
        max_episode_steps: int | None = 27_000,
        use_fire_reset: bool = True,
        num_threads: int = 0,
        render_mode: Literal["rgb_array"] | None = None,
    ) -> None:
        self.game = find_game(game)
        check_at_least(1, num_envs=num_envs, frame_skip=frame_skip, frame_stack=frame_stack, image_size=image_size)
        if max_episode_steps is not None:
            check_at_least(1, max_episode_steps=max_episode_steps)
        check_at_least(0, noop_max=noop_max, num_threads=num_threads)
        if frame_skip > MAX_FRAME_SKIP:
            raise ValueError(f"frame_skip={frame_skip}: must be at most {MAX_FRAME_SKIP}")
        if noop_max > MAX_NOOPS:
            raise ValueError(f"noop_max={noop_max}: must be at most {MAX_NOOPS}")
        if not 0 <= repeat_action_probability <= 1:
            raise ValueError(f"repeat_action_probability={repeat_action_probability}: must be from 0 to 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode}: must be rgb_array or None")
        options: dict[str, Any] = {
            "steps": max_episode_steps,
            "clip_rewards": clip_rewards,
            "frame_skip": frame_skip,
            "episodic_life": episodic_life,
            "stack_num": frame_stack,
            "img_height": image_size,
            "img_width": image_size,
            "noop_max": noop_max,
            "repeat_action_probability": repeat_action_probability,
            "full_action_space": full_action_space,
        }
        uncounted, kind = starting_frames(self.game), Game if render_mode is None else ColourGame
        self._games = [kind(self.game, uncounted, **options) for _ in range(num_envs)]
        actions = self._games[0].get_action_meanings()
        self._no_op = actions.index("NOOP") if "NOOP" in actions else 0
        self._first_actions = (1, 2) if use_fire_reset and actions[1] == "FIRE" else ()
        self._max_running = num_threads or num_envs
        self._waiting: deque[tuple[int, int]] = deque()  # (game, action) still to be sent
        self._running: deque[int] = deque()  # games in the order in which they were sent
        self._openings: list[Iterator[int] | None] = [None] * num_envs  # remaining actions between two episodes
        self._created = time.time()
        self._ready = False
        self.render_mode = render_mode
        self._shape = (frame_stack, image_size, image_size)
        super().__init__(num_envs, Box(0, 255, self._shape, np.uint8), Discrete(len(actions)))
        cast("dict[str, Any]", self.metadata)["render_fps"] = 60 // frame_skip
        if seed is not None:
            self.seed(seed)

    def _new_step(self) -> None:
        """Allocate new arrays, since the caller may keep those of the previous step."""
        self._observations: NDArray[np.uint8] = np.empty((self.num_envs, *self._shape), np.uint8)
        self._rewards: NDArray[np.float32] = np.zeros(self.num_envs, np.float32)
        self._dones: NDArray[np.bool_] = np.zeros(self.num_envs, bool)
        self._infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

    def _advance(self) -> None:
        """Play until every game has an observation for the learner."""
        self._send()
        while self._running:
            index = self._running.popleft()
            game = self._games[index]
            game.receive()
            if game.finished:  # keep the first entry, should a game end again in its opening actions
                seconds = round(time.time() - self._created, 6)
                episode = {"r": round(game.score, 6), "l": game.length, "t": seconds}
                self._infos[index].setdefault("episode", episode)
            if self._openings[index] is None:
                self._end_step(index, game)
            else:
                self._continue_opening(index, game)
            self._send()

    def _send(self) -> None:
        """Start waiting steps while threads are free."""
        while self._waiting and len(self._running) < self._max_running:
            index, action = self._waiting.popleft()
            self._games[index].send(action)
            self._running.append(index)

    def _continue_opening(self, index: int, game: Game) -> None:
        """Queue the next action between two episodes, or set the first observation of the new episode."""
        action = next(self._openings[index] or iter(()), None)
        if action is not None:
            self._waiting.append((index, action))
            return
        self._openings[index] = None
        self._observations[index] = game.observe(first=True)
        self.reset_infos[index] = game.info()

    def _end_step(self, index: int, game: Game) -> None:
        """Set the learner's reward, observation and info."""
        reward = game.reward
        self._rewards[index] = (reward > 0) - (reward < 0) if game.clip_rewards else reward
        terminated = game.over or game.life_lost
        info = self._infos[index]
        info |= game.info()
        info["TimeLimit.truncated"] = game.cut_off and not terminated
        observation = game.observe()
        if terminated or game.cut_off:
            self._dones[index] = True
            info["terminal_observation"] = observation.copy()
            self._openings[index] = next_episode(game, self._first_actions, self._no_op)
            self._continue_opening(index, game)
        else:
            self._observations[index] = observation

    def reset(self) -> VecEnvObs:
        """Start new games, with the seeds of `seed`."""
        self._check_open()
        self._waiting.clear()
        while self._running:
            self._games[self._running.popleft()].receive()
        self._new_step()
        with ThreadPoolExecutor(self._max_running) as threads:  # seeding reloads the game, which takes 70 ms
            list(threads.map(lambda game, seed: game.restart(seed), self._games, self._seeds))
        for index, game in enumerate(self._games):
            self._openings[index] = opening(game, self._first_actions, self._no_op)
            self._continue_opening(index, game)
            self._send()
        self._advance()
        self._reset_seeds()
        self._reset_options()
        self._ready = True
        return self._observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step of every game with integer actions ``(num_envs,)``; the games run in other threads."""
        self._check_open()
        if not self._ready or self._running:
            raise RuntimeError("step_async() must follow reset() or step_wait()")
        actions, count = np.asarray(actions), int(cast("Discrete[Any]", self.action_space).n)
        # The emulators would hang after an unknown action.
        fits = actions.shape == (self.num_envs,) and np.issubdtype(actions.dtype, np.integer)
        if not fits or actions.min() < 0 or actions.max() >= count:
            raise ValueError(f"actions={actions.tolist()}: must be {self.num_envs} integers from 0 to {count - 1}")
        self._new_step()
        self._waiting.extend(enumerate(actions.tolist()))
        self._send()

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        self._advance()
        return self._observations, self._rewards, self._dones, self._infos

    def close(self) -> None:
        """Close the emulators and their threads."""
        self._games, self._ready = [], False

    def _check_open(self) -> None:
        if not self._games:
            raise RuntimeError("the environment is closed")

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return an RGB image of each game, uint8 (210, 160, 3) for most; None without a ``render_mode``.

        It shows the latest step, or the new episode where that step ended one. As in observations it is the maximum of
        two frames, because many games draw objects in every other frame only.
        """
        self._check_open()
        if self.render_mode is None:  # as SB3's DummyVecEnv
            warnings.warn("render_mode=None: get_images() needs rgb_array", stacklevel=2)
            return [None] * self.num_envs
        if not self._ready:
            raise RuntimeError("get_images() must follow reset()")
        return self.get_attr("picture")

    def _chosen(self, indices: VecEnvIndices) -> list[Game]:
        return [self._games[index] for index in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each game ("lives", "score", "frames"), or an attribute of this object."""
        if attr_name in vars(self):
            return [getattr(self, attr_name) for _ in self._chosen(indices)]
        return [getattr(game, attr_name) for game in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ANN401  # as in SB3
        """Set one of the `SETTABLE` attributes of each game; raise `AttributeError` for others, which are fixed."""
        if attr_name not in SETTABLE:
            raise AttributeError(f"attr_name={attr_name!r}: must be {' or '.join(SETTABLE)}; all others are fixed")
        for game in self._chosen(indices):
            setattr(game, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:  # noqa: ANN401  # as in SB3
        """Call a method of each game, such as "get_action_meanings"."""
        return [getattr(game, method_name)(*args, **kwargs) for game in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Return True for `Monitor` only, so that `evaluate_policy` takes whole games from "episode"."""
        return [wrapper_class is Monitor for _ in self._chosen(indices)]

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

from rl.envs.emulator import ColourGame, Game, starting_frames
from rl.envs.roms import find_game

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import gymnasium
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn


class AtariVecEnv(VecEnv):
    """Many games of Atari at once, on ale-py's native vector environments, as a `VecEnv` of Stable-Baselines3.

    Steps, rewards, episodes and what is done between two episodes are those of Stable-Baselines3's
    `make_atari_env` with its `AtariWrapper` and `VecFrameStack(4)`, without a Python environment per game.
    Each game runs in a thread of its own. Observations are uint8 ``(num_envs, frame_stack, image_size,
    image_size)``, channels first, the newest frame last, 0 to 255, in a new array for every step; policies take
    them as they are (no `VecTransposeImage` is put around).

    With ``episodic_life``, a lost life is ``done`` for the learner while the game goes on: one no-op step follows,
    then FIRE and the action after it if the game has FIRE, and the learner sees what comes then. Only the end of
    the game puts ``infos[i]["episode"]``: "r", the score, unclipped and with what the hidden steps brought;
    "l", the length in frames of the emulator (not in steps), no-ops and hidden steps included, which is what
    Monitor counts below `AtariWrapper`; "t", seconds since this object was made. Every step has "lives",
    "frame_number", "episode_frame_number" and "TimeLimit.truncated" in its infos, every end of an episode
    "terminal_observation". No `VecMonitor` is needed: it would count clipped rewards and single lives in their place.

    What differs from `make_atari_env`:

    - No-ops at the start of a game are 0 to ``noop_max - 1``, drawn by the emulator's generator; there 1 to 30.
    - Colours become grey before, not after, the maximum of two frames is taken. On Breakout, Pong, Seaquest and
      Ms. Pacman, 99.5 to 100 % of the pixels were the same in 150 steps, the others differed by up to 37.
    - The last observation of a game that is over, not cut off, may show an older frame: the emulator does not
      draw the frame in which the game ends.
    - A cut-off waits for the end of the step, so that games may be up to ``frame_skip - 1`` frames longer.
    - `reset` starts new games, also in the middle of one, so that seeds take effect; there it only goes on with
      the next life.
    - A game that ends in a hidden step is reported with the step before; there its score is lost.
    - Sticky actions are the emulator's own, drawn for every frame; the same distribution.

    Sources: Mnih et al. (2015), Methods, for the preprocessing; Machado et al. (2018), section 5, for sticky
    actions; Stable-Baselines3's `AtariWrapper` for the order of things.

    Args:
        game: Any spelling that `rl.envs.roms.find_game` knows.
        num_envs: How many games.
        seed: Of the first `reset`: game i gets ``seed + i``. None draws from the machine's entropy.
        episodic_life: Whether a lost life ends an episode. Games for scores may as well be evaluated with it,
            since "episode" counts whole games.
        clip_rewards: Whether the learner sees the sign of each reward in place of its value.
        frame_skip: Frames that an action is held.
        frame_stack: Frames in an observation, one per step.
        noop_max: Number of no-ops at the start of a game that are possible, 0 included. 0 is the same as 1.
        repeat_action_probability: Sticky actions: 0 as in the ``NoFrameskip-v4`` environments, whatever the name
            of the game; the ``ALE/...-v5`` environments have 0.25.
        full_action_space: All 18 actions of the console in place of those that do something in this game.
        image_size: Height and width of a frame in pixels.
        max_episode_steps: Steps after which a game is cut off, in units of ``frame_skip`` frames; those at the
            start of a game count. None never cuts off.
        use_fire_reset: Whether FIRE and the next action are played at the start of an episode, in games whose
            second action is FIRE.
        num_threads: How many games may be stepped at the same time; 0 for all of them.
        render_mode: "rgb_array" for `get_images` and `render`: pictures in colour, as large as the game's screen.
            Each game is then emulated a second time, since an emulator gives either grey or colours; what the
            learner sees stays the same. None: there are no pictures, and they cost nothing.

    Raises:
        ValueError: If the game is not known, a number is out of its range, or there is no such render mode.
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
        at_least = {"num_envs": (num_envs, 1), "frame_skip": (frame_skip, 1), "frame_stack": (frame_stack, 1)}
        at_least |= {"noop_max": (noop_max, 0), "image_size": (image_size, 1), "num_threads": (num_threads, 0)}
        if max_episode_steps is not None:
            at_least["max_episode_steps"] = (max_episode_steps, 1)
        for name, (value, smallest) in at_least.items():
            if value < smallest:
                raise ValueError(f"{name}={value}: must be at least {smallest}")
        if not 0 <= repeat_action_probability <= 1:
            raise ValueError(f"repeat_action_probability={repeat_action_probability}: must be from 0 to 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode}: must be rgb_array or None")
        options: dict[str, Any] = {
            "steps": max_episode_steps,
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
        self.clip_rewards = clip_rewards
        actions = self._games[0].get_action_meanings()
        self._no_op = actions.index("NOOP") if "NOOP" in actions else 0
        self._first_actions = (1, 2) if use_fire_reset and actions[1] == "FIRE" else ()
        self._at_once = num_threads or num_envs
        self._waiting: deque[tuple[int, int]] = deque()  # (game, action) that are still to be sent
        self._running: deque[int] = deque()  # games in the order in which they were sent
        self._openings: list[Iterator[int] | None] = [None] * num_envs  # what is played between two episodes
        self._born = time.time()
        self._ready = False
        self.render_mode = render_mode
        self._shape = (frame_stack, image_size, image_size)
        space = Box(0, 255, self._shape, np.uint8)
        super().__init__(num_envs, space, Discrete(len(actions)))
        cast("dict[str, Any]", self.metadata)["render_fps"] = 60 // frame_skip
        if seed is not None:
            self.seed(seed)

    def _new_step(self) -> None:
        """New arrays: those of the step before belong to whoever has them."""
        self._observations: NDArray[np.uint8] = np.empty((self.num_envs, *self._shape), np.uint8)
        self._rewards: NDArray[np.float32] = np.zeros(self.num_envs, np.float32)
        self._dones: NDArray[np.bool_] = np.zeros(self.num_envs, bool)
        self._infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]

    def _open(self, game: Game) -> Iterator[int]:
        """The actions that open an episode, one by one (Stable-Baselines3's FireResetEnv)."""
        for action in self._first_actions:
            yield action
            if game.finished or game.life_lost:
                yield from self._next_life(game)

    def _next_life(self, game: Game) -> Iterator[int]:
        """The actions that lead from the end of a life or game to the next one (EpisodicLifeEnv)."""
        if not game.finished:
            yield self._no_op
        if game.over:
            yield self._no_op  # starts a new game
        elif game.cut_off:
            game.restart(None)

    def _between(self, game: Game) -> Iterator[int]:
        """All that is played between two episodes."""
        yield from self._next_life(game)
        yield from self._open(game)

    def _advance(self) -> None:
        """Plays until every game has arrived at an observation for the learner."""
        self._send()
        while self._running:
            index = self._running.popleft()
            game = self._games[index]
            game.receive()
            if game.finished:
                # The first of two, should a game end while it is opened.
                self._infos[index].setdefault("episode", self._episode(game))
            if self._openings[index] is None:
                self._end_step(index, game)
            else:
                self._go_on(index, game)
            self._send()

    def _send(self) -> None:
        """Starts what is waiting, as far as threads are free."""
        while self._waiting and len(self._running) < self._at_once:
            index, action = self._waiting.popleft()
            self._games[index].send(action)
            self._running.append(index)

    def _go_on(self, index: int, game: Game) -> None:
        """Queues the next action of what is played between two episodes, or shows the learner the new one."""
        action = next(self._openings[index] or iter(()), None)
        if action is not None:
            self._waiting.append((index, action))
            return
        self._openings[index] = None
        self._observations[index] = game.observe(first=True)
        self.reset_infos[index] = game.info()

    def _end_step(self, index: int, game: Game) -> None:
        """Tells the learner what its action brought."""
        reward = game.reward
        self._rewards[index] = (reward > 0) - (reward < 0) if self.clip_rewards else reward
        terminated = game.over or game.life_lost
        info = self._infos[index]
        info |= game.info()
        info["TimeLimit.truncated"] = game.cut_off and not terminated
        observation = game.observe()
        if terminated or game.cut_off:
            self._dones[index] = True
            info["terminal_observation"] = observation.copy()
            self._openings[index] = self._between(game)
            self._go_on(index, game)
        else:
            self._observations[index] = observation

    def _episode(self, game: Game) -> dict[str, float]:
        """What Stable-Baselines3's Monitor says about a game that is over."""
        return {"r": round(game.score, 6), "l": game.length, "t": round(time.time() - self._born, 6)}

    def reset(self) -> VecEnvObs:
        """Starts new games, with the seeds that `seed` gave.

        Returns:
            Observations, uint8 ``(num_envs, frame_stack, image_size, image_size)``.
        """
        self._check_open()
        self._waiting.clear()
        while self._running:
            self._games[self._running.popleft()].receive()
        self._new_step()
        with ThreadPoolExecutor(self._at_once) as threads:  # a seed means to load the game anew, 70 ms
            list(threads.map(lambda game, seed: game.restart(seed), self._games, self._seeds))
        for index, game in enumerate(self._games):
            self._openings[index] = self._open(game)
            self._go_on(index, game)
            self._send()
        self._advance()
        self._reset_seeds()
        self._reset_options()
        self._ready = True
        return self._observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Starts a step of every game; they run while Python does something else.

        Args:
            actions: Integers ``(num_envs,)`` from 0 to the number of actions - 1.

        Raises:
            ValueError: If the actions are others.
        """
        self._check_open()
        if not self._ready or self._running:
            raise RuntimeError("step_async() must follow reset() or step_wait()")
        actions, count = np.asarray(actions), int(cast("Discrete[Any]", self.action_space).n)
        # The emulators would wait for ever after an action that they do not know.
        fits = actions.shape == (self.num_envs,) and np.issubdtype(actions.dtype, np.integer)
        if not fits or actions.min() < 0 or actions.max() >= count:
            raise ValueError(f"actions={actions.tolist()}: must be {self.num_envs} integers from 0 to {count - 1}")
        self._new_step()
        self._waiting.extend(enumerate(actions.tolist()))
        self._send()

    def step_wait(self) -> VecEnvStepReturn:
        """Waits for the step.

        Returns:
            Observations, rewards (float32), ends of episodes and infos; see the class.
        """
        self._advance()
        return self._observations, self._rewards, self._dones, self._infos

    def close(self) -> None:
        """Ends the emulators and their threads."""
        self._games, self._ready = [], False

    def _check_open(self) -> None:
        if not self._games:
            raise RuntimeError("these games were closed")

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """What each game shows, in colour: of the latest step, or of the new episode where that step has ended one.

        Like observations it is the maximum of two frames, as many games draw some things in every other frame only.

        Returns:
            uint8 ``(height, width, 3)`` each, (210, 160, 3) of most games; None without a ``render_mode``.
        """
        self._check_open()
        if self.render_mode is None:  # as SB3's DummyVecEnv
            warnings.warn("There are no images: render_mode is None, must be rgb_array", stacklevel=2)
            return [None] * self.num_envs
        if not self._ready:
            raise RuntimeError("get_images() must follow reset()")
        return self.get_attr("picture")

    def _chosen(self, indices: VecEnvIndices) -> list[Game]:
        return [self._games[index] for index in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each game ("lives", "score", "frames"), or one of this object, which all of them share."""
        if attr_name in vars(self):
            return [getattr(self, attr_name) for _ in self._chosen(indices)]
        return [getattr(game, attr_name) for game in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ANN401  # as in SB3
        """Sets an attribute of each game."""
        for game in self._chosen(indices):
            setattr(game, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ANN401  # as in SB3
        indices: VecEnvIndices = None,
        **method_kwargs: Any,  # noqa: ANN401  # as in SB3
    ) -> list[Any]:
        """Calls a method of each game, such as "get_action_meanings"."""
        return [getattr(game, method_name)(*method_args, **method_kwargs) for game in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for `Monitor`, whose work is done here: `evaluate_policy` then takes whole games from "episode"."""
        return [wrapper_class is Monitor for _ in self._chosen(indices)]

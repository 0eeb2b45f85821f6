"""Atari games in another mode or difficulty of the console: Stable-Baselines3's environments, one at a time.

ale-py's native emulators, which `rl.envs.atari.AtariVecEnv` steps side by side, play the default mode only.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from rl.envs.emulator import NO_LIMIT, available_settings
from rl.envs.images import prepare_observations
from rl.envs.roms import find_game

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from rl.envs.game_options import GameOptions


def make_atari_modes(game: str, num_envs: int, seed: int | None, options: GameOptions) -> VecEnv:
    """Make games with ``options.arguments``, a mode or a difficulty (Machado et al., 2018, section 5.3).

    Episodes are those of SB3's `make_atari_env` with the other options. Observations are single frames ``(1, H, W)``.

    Raises:
        ValueError: The game does not have this mode or difficulty, or there are other arguments.
        ImportError: OpenCV is missing, which SB3 scales frames with.

    Example:
        >>> from rl.envs.game_options import GameOptions
        >>> env = make_atari_modes("pong", 2, 0, GameOptions(arguments={"mode": 1, "difficulty": 2}))
        >>> env.reset().shape
        (2, 1, 84, 84)
        >>> env.close()
    """
    name, game = f"model.arguments={options.arguments}", find_game(game)
    available = available_settings(game)
    for setting, value in options.arguments.items():
        if setting not in available:
            raise ValueError(f"{name}: {setting} must be {' or '.join(available)} for Atari games")
        if type(value) is not int or value not in available[setting]:
            allowed = ", ".join(map(str, available[setting]))
            raise ValueError(f"{name}: {setting}={value} must be one of {allowed} for {game}")
    if importlib.util.find_spec("cv2") is None:
        raise ImportError(f"{name}: modes of Atari games need OpenCV: pip install opencv-python-headless")
    importlib.import_module("ale_py")  # registers the games
    envs = DummyVecEnv([partial(_make_one, game, options)] * num_envs)
    envs.seed(seed)
    return envs


def _make_one(game: str, options: GameOptions) -> gymnasium.Env[Any, Any]:
    steps = options.max_episode_steps
    env = gymnasium.make(
        f"ALE/{game.title().replace('_', '')}-v5",
        frameskip=1,
        repeat_action_probability=options.repeat_action_probability,
        full_action_space=options.full_action_space,
        max_num_frames_per_episode=NO_LIMIT if steps is None else steps * options.frame_skip,
        render_mode=options.render_mode,
        **options.arguments,
    )
    env = AtariWrapper(
        Monitor(env),
        noop_max=options.noop_max,
        frame_skip=options.frame_skip,
        screen_size=options.image_size,
        terminal_on_life_loss=options.episodic_life,
        clip_reward=options.clip_rewards,
    )
    return prepare_observations(env)

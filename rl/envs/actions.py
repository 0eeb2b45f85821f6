"""Convert the actions of a policy to those that a game expects.

Policies count discrete actions from 0 and sample in single precision, as Stable-Baselines3's do. A game may count from
another number (``start``) and expect another data type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnvWrapper

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


def zero_based(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space that a policy samples from: discrete actions are counted from 0, other spaces are the game's.

    >>> zero_based(spaces.Discrete(3, start=1))
    Discrete(3)
    """
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.start.any():
        return spaces.MultiDiscrete(space.nvec)
    return space


def game_actions(actions: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """Convert actions ``(N, ...)`` of a policy to those of a game with this action space.

    >>> game_actions(np.array([0, 2]), spaces.Discrete(3, start=1))
    array([1, 3])
    """
    if space.dtype is None:  # Tuple, Dict: no action space of Stable-Baselines3
        return actions
    start = space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else 0
    return (actions + start).astype(space.dtype)


def has_supported_actions(space: spaces.Space[Any]) -> bool:
    """Return whether actor-critic policies can sample from this space: as in Stable-Baselines3, and a Box has floats.

    >>> has_supported_actions(spaces.MultiDiscrete([2, 5])), has_supported_actions(spaces.MultiDiscrete([[2], [5]]))
    (True, False)
    """
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ndim == 1
    if isinstance(space, spaces.MultiBinary):
        return len(space.shape) == 1
    return isinstance(space, spaces.Discrete) or (
        isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    )


class GameActions(VecEnvWrapper):
    """Show a policy the `zero_based` action space of a game, and convert its actions to the game's."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.game_space, self.action_space = venv.action_space, zero_based(venv.action_space)

    def reset(self) -> VecEnvObs:
        """Reset the environments."""
        return self.venv.reset()

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step with the actions of a policy."""
        self.venv.step_async(game_actions(actions, self.game_space))

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the step."""
        return self.venv.step_wait()

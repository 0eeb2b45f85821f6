"""A tiny game on images, and policies for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 40


class Spot(gym.Env[Any, Any]):
    """A bright spot jumps about, for a random number of steps; an action gives as much as its number and the spot's.

    Args:
        shape: Of the observations.
        actions: How many there are; 0 for one continuous action.
        as_dict: Whether the image comes with a vector.
        render_mode: "rgb_array", or None.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as gymnasium has it

    def __init__(
        self,
        shape: tuple[int, int, int] = (2, SIDE, SIDE),
        actions: int = 3,
        as_dict: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.image_space = spaces.Box(0, 255, shape, np.uint8)
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.as_dict, self.render_mode = as_dict, render_mode
        self.observation_space = (
            spaces.Dict({"image": self.image_space, "vector": vector}) if as_dict else self.image_space
        )
        self.action_space = (
            spaces.Discrete(actions) if actions else spaces.Box(-1.0, np.array([1.0, 2.0], np.float32), (2,))
        )

    def observe(self) -> NDArray[np.uint8] | dict[str, NDArray[Any]]:
        image = np.zeros(self.image_space.shape, np.uint8)
        place = self.np_random.integers(0, image.size)
        image.flat[place : place + 300] = 255
        self.bright = int(place % 3)
        if self.as_dict:
            return {"image": image, "vector": self.np_random.normal(size=2).astype(np.float32)}
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 12))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # of any kind
        self.left -= 1
        reward = float(np.sum(action)) + self.bright / 4
        return self.observe(), reward, self.left == 0, False, {}

    def render(self) -> NDArray[np.uint8]:
        return np.full((SIDE, SIDE + 2, 3), self.left, np.uint8)


class Lives(gym.Wrapper[Any, Any, Any, Any]):
    """A life ends with every third step and the game goes on, as with SB3's ``EpisodicLifeEnv``; rewards are halved."""

    steps = 0
    over = True
    last: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401  # as gymnasium's
        if self.over or kwargs.get("seed") is not None:
            self.over, self.steps = False, 0
            return self.env.reset(**kwargs)
        return self.last, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # of any kind
        self.last, reward, self.over, truncated, info = self.env.step(action)
        self.steps += 1
        return self.last, float(reward) / 2, self.over or self.steps % 3 == 0, truncated, info


def make_env(count: int = 3, *, monitor: bool = True, lives: bool = False, **kwargs: Any) -> VecEnv:  # noqa: ANN401  # handed on
    """Environments of `Spot`."""

    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = Spot(**kwargs)
        env = Monitor(env) if monitor else env
        return Lives(env) if lives else env

    return DummyVecEnv([make] * count)


def make_a2c(env: VecEnv | None = None, policy: Any = "CnnPolicy", **kwargs: Any) -> A2C:  # noqa: ANN401  # handed on
    """An untrained algorithm whose policy has opinions; its networks are smaller than usual."""
    kwargs.setdefault("policy_kwargs", {"features_extractor_kwargs": {"features_dim": 16}})
    algorithm = A2C(policy, env or make_env(), seed=0, device="cpu", **kwargs)
    sharpen(algorithm.policy.action_net)
    return algorithm


def make_dqn(env: VecEnv | None = None, policy: Any = "CnnPolicy", **kwargs: Any) -> DQN:  # noqa: ANN401  # handed on
    """The same for Q-values."""
    kwargs.setdefault("policy_kwargs", {"features_extractor_kwargs": {"features_dim": 16}})
    return DQN(policy, env or make_env(), seed=0, buffer_size=50, device="cpu", **kwargs)


def sharpen(layer: Any) -> None:  # noqa: ANN401  # a linear layer
    """SB3 draws the weights of actions so small that all are equally probable."""
    layer.weight.data.mul_(600)

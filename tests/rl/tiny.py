"""A tiny game on images, and policies for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["uint8", "float", "dict"]

SIDE, STRIPE = 40, 4
"""Height and width of the images, and width of the stripe."""


class Stripe(gym.Env[Any, Any]):
    """A bright stripe jumps about, for a random number of steps; naming the part of the image with it earns a point.

    Args:
        kind: Images of uint8, of float32 in [0, 1], or of uint8 in a Dict with a vector.
        shape: Shape of the images, channels first or last. The stripe is in the last channel.
        actions: How many there are, one for each part; 0 for a continuous action, which earns the sum of its values.
        render_mode: "rgb_array", or None.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as gymnasium has it

    def __init__(
        self,
        kind: Kind = "uint8",
        shape: tuple[int, int, int] = (2, SIDE, SIDE),
        actions: int = 3,
        render_mode: str | None = None,
    ) -> None:
        dtype, high = (np.float32, 1) if kind == "float" else (np.uint8, 255)
        self.image_space: spaces.Box = spaces.Box(0, high, shape, dtype)
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.kind, self.actions, self.render_mode = kind, actions, render_mode
        self.observation_space = (
            spaces.Dict({"image": self.image_space, "vector": vector}) if kind == "dict" else self.image_space
        )
        self.action_space = (
            spaces.Discrete(actions) if actions else spaces.Box(-1.0, np.array([1.0, 2.0], np.float32), (2,))
        )

    def observe(self) -> NDArray[Any] | dict[str, NDArray[Any]]:
        image: NDArray[Any] = np.zeros(self.image_space.shape, self.image_space.dtype)
        channel = np.moveaxis(image, int(np.argmin(image.shape)), 0)[-1]
        places = channel.shape[1] - STRIPE
        place = int(self.np_random.integers(places))
        channel[:, place : place + STRIPE] = self.image_space.high.max()
        self.part = place * self.actions // places
        if self.kind == "dict":
            return {"image": image, "vector": self.np_random.normal(size=2).astype(np.float32)}
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 12))
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # of any kind
        self.left -= 1
        reward = float(np.sum(action == self.part)) if self.actions else float(np.sum(action))
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
    """Environments of `Stripe`."""

    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = Stripe(**kwargs)
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

"""A tiny game to learn, and a command line that knows it: ``python -m tests.rl.training fit ...``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn
from unittest import mock

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from coordconv_apps.cli.app import run
from coordconv_apps.runs.folder import run_dir
from rl.data import RLData
from rl.tasks import A2C, RLTask

SIDE = 36
"""Of the pictures: the least that the network takes."""

TROUBLE, TROUBLED = "DOTS_TROUBLE", "DOTS_TROUBLED"
"""Environment variables: what happens in which step (``nan@5``, ``crash@5``, ``SIGINT@5``), and to which process."""


class Dots(VecEnv):
    """A dot somewhere: action 1 is right where it is in the left half, action 0 in the other.

    Games are 3 to 8 steps long. One in three is cut off by a time limit.

    Args:
        num_envs: How many games.
        seed: Game i draws from ``seed + i``.
    """

    def __init__(self, num_envs: int, seed: int) -> None:
        self.render_mode = None
        super().__init__(num_envs, spaces.Box(0, 255, (1, SIDE, SIDE), np.uint8), spaces.Discrete(2))
        self.generators = [np.random.default_rng(seed + number) for number in range(num_envs)]
        self.steps = 0
        self.actions: npt.NDArray[np.int64] = np.zeros(num_envs, np.int64)
        self.columns, self.lengths = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.scores, self.played = np.zeros(num_envs), np.zeros(num_envs, np.int64)

    def _begin(self, number: int) -> None:
        generator = self.generators[number]
        self.lengths[number] = generator.integers(3, 9)
        self.columns[number] = generator.integers(SIDE)
        self.scores[number] = self.played[number] = 0

    def _draw(self) -> npt.NDArray[np.uint8]:
        images = np.zeros((self.num_envs, 1, SIDE, SIDE), np.uint8)
        for number, column in enumerate(self.columns):
            images[number, 0, :, max(column - 2, 0) : column + 3] = 200 + self.played[number]
        return images

    def reset(self) -> npt.NDArray[np.uint8]:
        for number, seed in enumerate(self._seeds):
            if seed is not None:
                self.generators[number] = np.random.default_rng(seed)
        self._reset_seeds()
        for number in range(self.num_envs):
            self._begin(number)
        return self._draw()

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        self.actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        self.steps += 1
        rewards = ((self.columns < SIDE // 2) == (self.actions == 1)).astype(np.float32)
        kind, _, step = os.environ.get(TROUBLE, "@0").partition("@")
        if self.steps == int(step) and self.num_envs > 1:  # of a training's environments
            if kind == "crash":
                raise OSError("the emulator is gone")
            if kind == "nan" and os.environ.get("LOCAL_RANK", "0") == os.environ.get(TROUBLED, "0"):
                rewards[-1] = np.nan
            if kind == "SIGINT":
                os.kill(os.getpid(), signal.SIGINT)
        self.scores += rewards
        self.played += 1
        for number, generator in enumerate(self.generators):
            self.columns[number] = generator.integers(SIDE)
        dones = self.played == self.lengths
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        last = self._draw()
        for number in np.flatnonzero(dones).tolist():
            infos[number] = {
                "terminal_observation": last[number],
                "TimeLimit.truncated": bool(self.lengths[number] % 3 == 0),
                "episode": {"r": float(self.scores[number]), "l": int(self.played[number]), "t": 0.0},
            }
            self._begin(number)
        return self._draw(), rewards, dones, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> NoReturn:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *args: object, indices: VecEnvIndices = None, **kwargs: object) -> NoReturn:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [True for _ in self._get_indices(indices)]


class Steered(Dots):
    """Dots with continuous actions: how far to either side, from -1 to 1."""

    def __init__(self, num_envs: int, seed: int, shape: tuple[int, ...] = (2,)) -> None:
        super().__init__(num_envs, seed)
        self.action_space = spaces.Box(-1, 1, shape, np.float32)
        self.actions_taken: list[Any] = []

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self.actions_taken.append(actions)
        super().step_async((actions.reshape(len(actions), -1)[:, 0] > 0).astype(np.int64))


def make_dots(game: str, num_envs: int, seed: int | None = None, **options: Any) -> VecEnv:  # noqa: ANN401  # of games
    """In place of `rl.envs.games.make_envs`: the games "dots" and "steered"."""
    assert seed is not None
    return {"dots": Dots, "steered": Steered}[game](num_envs, seed)


class Ranks(Callback):
    """Writes the weights that each process has at the end of a training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), run_dir(trainer) / f"rank_{trainer.global_rank}.pt")


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command."""
    with mock.patch("rl.envs.games.make_envs", make_dots):
        run("rl", RLTask, RLData, args, default_task=A2C, callbacks=[Ranks])


if __name__ == "__main__":
    main(sys.argv[1:])

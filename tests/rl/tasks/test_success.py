"""Games that report whether they succeeded: the rate is logged in training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import rl.envs.games
from coordconv_apps.utils.warning_filters import filter_warnings
from rl.data import RLData
from rl.predictions import EpisodeWriter
from rl.tasks import A2C, DQN
from tests.helpers.runs import rows
from tests.helpers.trainers import own_trainer

if TYPE_CHECKING:
    from pathlib import Path


class FirstActionDecides(gym.Env[Any, Any]):
    """A game of two steps, which succeeds after action 1 in its first step, and reports it on request."""

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self, reports: bool) -> None:
        self.reports, self.taken = reports, [0]

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401  # Gymnasium's
        super().reset(**options)
        self.taken = []
        return np.zeros((1, 36, 36), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ANN401  # Gymnasium's
        self.taken.append(int(action))
        succeeded = self.taken[0] == 1
        info = {"is_success": succeeded} if self.reports else {}
        return np.zeros((1, 36, 36), np.uint8), float(succeeded), len(self.taken) == 2, False, info


@pytest.mark.parametrize(("kind", "reports"), [(A2C, True), (A2C, False), (DQN, True)])
def test_the_success_rate_is_logged_where_games_report_it(
    kind: type[A2C | DQN], reports: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make_envs(game: str, num_envs: int, seed: int | None = None, **options: Any) -> VecEnv:  # noqa: ANN401
        return DummyVecEnv([lambda: Monitor(FirstActionDecides(reports))] * num_envs)

    monkeypatch.setattr(rl.envs.games, "make_envs", make_envs)
    monkeypatch.setattr(rl.predictions, "find_kind", lambda game: "gymnasium")
    sizes: dict[str, Any] = {"n_steps": 8} if kind is A2C else {"buffer_size": 32, "learning_starts": 16}
    task = kind(game="recorded", total_timesteps=32, **sizes)
    data = RLData(num_envs=2, steps_per_epoch=32, num_eval_envs=2, eval_episodes=6, test_episodes=6)
    with filter_warnings():
        trainer = own_trainer(tmp_path, max_epochs=1, callbacks=[EpisodeWriter(film=False)])
        trainer.fit(task, data)
        logged = dict(trainer.callback_metrics)
        trainer.test(task, data, verbose=False)
    logged |= trainer.callback_metrics
    rates = {name: float(value) for name, value in logged.items() if name.endswith("success_rate")}
    episodes = rows(tmp_path, "episodes.csv")
    if not reports:
        assert not rates
        assert [row["success"] for row in episodes] == [""] * 6
        return
    assert set(rates) == {"train/success_rate", "val/success_rate", "test/success_rate"}
    # A success gives a reward of 1 in both steps.
    assert rates["train/success_rate"] == pytest.approx(float(logged["train/score"]) / 2)
    assert [float(row["success"]) * 2 for row in episodes] == [float(row["score"]) for row in episodes]
    assert rates["test/success_rate"] == pytest.approx(np.mean([float(row["success"]) for row in episodes]))

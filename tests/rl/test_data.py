"""The data module: which environments are opened, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

import rl.envs.games
from coordconv_apps.utils.warning_filters import filter_warnings
from rl.data import EVALUATION_SEEDS, RLData
from rl.envs.game_options import DEFAULTS
from rl.tasks import A2C
from tests.helpers.trainers import own_trainer
from tests.rl.reference_envs import Recorder

GAME = "Tests/Recorder-v0"


class Processes(DummyVecEnv):
    """In place of `SubprocVecEnv`, which takes seconds to start: counts how often it is made and closed."""

    opened: list[Processes]

    def __init__(self, makers: Any) -> None:  # noqa: ANN401  # of SB3
        super().__init__(makers)
        self.opened.append(self)
        self.closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Processes]]:
    def make(**_: Any) -> Recorder:  # noqa: ANN401  # nothing
        return Recorder(spaces.Discrete(2))

    gymnasium.register(GAME, entry_point=make, disable_env_checker=True)
    monkeypatch.setattr(Processes, "opened", [], raising=False)
    monkeypatch.setattr(rl.envs.games, "SubprocVecEnv", Processes)
    yield Processes.opened
    del gymnasium.registry[GAME]


def fit(task: A2C, data: RLData, folder: Path, epochs: int = 1) -> None:
    with filter_warnings():
        own_trainer(folder, max_epochs=epochs).fit(task, data)


def test_processes_are_opened_once_for_all_validations(processes: list[Processes], tmp_path: Path) -> None:
    data = RLData(num_envs=3, steps_per_epoch=15, num_eval_envs=2, eval_episodes=4, processes=True)
    fit(A2C(game=GAME, total_timesteps=45), data, tmp_path, epochs=3)
    assert [env.num_envs for env in processes] == [3, 2]
    assert all(env.closed for env in processes)
    for number, env in enumerate(processes[1].envs):  # each validation plays the same games
        game: Any = env.unwrapped
        assert game.seeds == [EVALUATION_SEEDS["val"] + number] * 3
        assert len(game.taken) == 3 * 2 * 4


def test_a_film_needs_no_process(processes: list[Processes]) -> None:
    data = RLData(processes=True)
    for number in (1, 2):
        data.open_evaluation_envs(GAME, DEFAULTS, number, 0).close()
    assert [env.num_envs for env in processes] == [2]


@pytest.mark.usefixtures("processes")
def test_environments_of_an_evaluation_that_failed_are_not_used_again() -> None:
    data = RLData(processes=True)
    with pytest.raises(RuntimeError), data.evaluation_envs(GAME, DEFAULTS, 2, 0):
        raise RuntimeError
    assert [env.closed for env in Processes.opened] == [True]
    with data.evaluation_envs(GAME, DEFAULTS, 2, 0):
        pass
    assert [env.closed for env in Processes.opened] == [True, False]
    data.teardown("validate")
    assert [env.closed for env in Processes.opened] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ({}, {"balls": 3}, "data.balls=3: is for Catch only; model.game=pong would ignore it"),
        (
            {"mode": 1},
            {"num_threads": 2},
            r"data\.num_threads=2: must be 0 with model\.arguments=\{'mode': 1\}: games in a mode take turns",
        ),
    ],
)
def test_options_that_the_game_would_ignore_are_refused_before_the_training(
    arguments: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        fit(A2C(game="pong", image_size=36, arguments=arguments), RLData(**options), tmp_path)

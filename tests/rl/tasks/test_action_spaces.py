"""Each action space with each algorithm: the game gets actions of its space only, or one line refuses the space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import rl.envs.games
from coordconv_apps.utils.warning_filters import filter_warnings
from rl.data import RLData
from rl.envs.actions import zero_based
from rl.tasks import A2C, DQN, PPO, RLTask
from tests.helpers.trainers import own_trainer
from tests.rl.reference_envs import Recorder

DISCRETE: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3),
    "Discrete from 1": spaces.Discrete(3, start=1),
    "Discrete from -4, 32 bits": spaces.Discrete(2, start=-4, dtype=np.int32),
}
OTHERS: dict[str, spaces.Space[Any]] = {
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiDiscrete from 1 and -1": spaces.MultiDiscrete([3, 2], dtype=np.int32, start=[1, -1]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box ()": spaces.Box(-1, 1, (), np.float32),
    "Box (1,)": spaces.Box(-1, 1, (1,), np.float32),
    "Box (1, 1)": spaces.Box(-0.1, 0.1, (1, 1), np.float32),
    "Box (2, 2), 64 bits": spaces.Box(-0.1, 0.1, (2, 2), np.float64),
    "Box (2,), 16 bits": spaces.Box(-0.1, 0.1, (2,), np.float16),
}
NEVER: dict[str, spaces.Space[Any]] = {
    "MultiDiscrete of two axes": spaces.MultiDiscrete(np.array([[2, 3], [3, 2]])),
    "MultiBinary of two axes": spaces.MultiBinary([2, 3]),
    "Box of integers": spaces.Box(0, 3, (2,), np.int64),
    "Tuple": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
    "Dict": spaces.Dict({"turn": spaces.Discrete(2), "speed": spaces.Box(-1, 1, (1,))}),
    "Text": spaces.Text(4),
}

ARGUMENTS: dict[type[RLTask], dict[str, Any]] = {
    A2C: {"n_steps": 8},
    PPO: {"n_steps": 8, "batch_size": 8, "n_epochs": 1},
    DQN: {"buffer_size": 32, "learning_starts": 24, "batch_size": 4},
}
WORDS = {
    A2C: "Discrete, MultiDiscrete or MultiBinary of one axis, or a Box of floating-point numbers for A2C",
    DQN: "Discrete for DQN",
}


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[Recorder]:
    """All games with the action space of a test, which tasks open in place of real ones."""
    opened: list[Recorder] = []

    def make() -> Monitor[Any, Any]:
        opened.append(Recorder(request.getfixturevalue("space"), image=(1, 36, 36)))
        return Monitor(opened[-1])

    def make_envs(game: str, num_envs: int, seed: int | None = None, **options: Any) -> VecEnv:  # noqa: ANN401
        return DummyVecEnv([make] * num_envs)

    monkeypatch.setattr(rl.envs.games, "make_envs", make_envs)
    return opened


def first_and_last(space: Any) -> tuple[Any, Any]:  # noqa: ANN401  # a space of numbers that are counted
    """The lowest and the highest value of each number of an action."""
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape), np.ones(space.shape)
    counts = space.n if isinstance(space, spaces.Discrete) else space.nvec
    return space.start, space.start + counts - 1


ALLOWED = {A2C: DISCRETE | OTHERS, PPO: {name: OTHERS[name] for name in ("MultiBinary", "Box (1, 1)")}, DQN: DISCRETE}
REFUSED = {A2C: NEVER, DQN: OTHERS}


def cells(chosen: Any) -> list[Any]:  # noqa: ANN401  # spaces by name, by kind of task
    return [
        pytest.param(kind, space, id=f"{kind.__name__}, {name}")
        for kind, spaces_by_name in chosen.items()
        for name, space in spaces_by_name.items()
    ]


@pytest.mark.parametrize(("kind", "space"), cells(ALLOWED))
def test_a_game_gets_actions_of_its_space_in_training_and_evaluation(
    kind: type[RLTask], space: spaces.Space[Any], games: list[Recorder], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = kind(game="recorded", total_timesteps=32, **ARGUMENTS[kind])  # type: ignore[call-arg]  # of each kind its own
    data = RLData(num_envs=2, steps_per_epoch=32, num_eval_envs=1, eval_episodes=4)
    with filter_warnings():
        own_trainer(tmp_path, max_epochs=1).fit(task, data)
    assert task.timesteps == 32
    training, evaluation = games[1:3], games[3:]  # the first game is opened for its spaces
    for players, steps in ((training, 32), (evaluation, 16)):
        taken = [action for game in players for action in game.taken]
        assert len(taken) == steps
        assert all(space.contains(np.asarray(action)) for action in taken)
        if players is training and not isinstance(space, spaces.Box):  # all are tried
            first, last = first_and_last(space)
            assert np.array_equal(np.min(taken, axis=0), first)
            assert np.array_equal(np.max(taken, axis=0), last)


@pytest.mark.parametrize(("kind", "space"), cells(REFUSED))
@pytest.mark.usefixtures("games")
def test_other_action_spaces_are_refused_in_one_line(kind: type[RLTask], space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        kind(game="recorded", **ARGUMENTS[kind])  # type: ignore[call-arg]  # of each kind its own
    words = " ".join(str(zero_based(space)).split())
    assert str(caught.value) == f"model.game=recorded: actions are {words}: must be {WORDS[kind]}"

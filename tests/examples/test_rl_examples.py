"""The examples with sb3-contrib and Optuna."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gymnasium
import optuna
import pytest
import torch
import yaml

from coordconv_apps.nn.coord_layer import CoordLayer
from coordconv_apps.utils.warning_filters import filter_warnings
from examples import sb3_contrib_algorithms, sb3_coordconv_policy, tune_with_optuna
from rl import CoordConvNatureCNN
from rl.tasks import PPO

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

SMALL = {
    "trpo": {"n_steps": 8, "batch_size": 8},
    "qrdqn": {"buffer_size": 32, "learning_starts": 8, "batch_size": 4},
    "recurrent_ppo": {"n_steps": 8, "batch_size": 8, "n_epochs": 1},
    "maskable_ppo": {"n_steps": 8, "batch_size": 8, "n_epochs": 1},
}


@pytest.mark.parametrize("name", sb3_contrib_algorithms.ALGORITHMS)
def test_each_algorithm_of_sb3_contrib_trains_coordinate_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[torch.Tensor] = []
    algorithm: Any = sb3_contrib_algorithms.ALGORITHMS[name][0]

    def learn(self: BaseAlgorithm, timesteps: int) -> None:
        learned(self, timesteps)
        extractors = [m for m in self.policy.modules() if isinstance(m, CoordConvNatureCNN)]
        assert extractors
        trained.extend(m.coord_weight.detach() for m in extractors[0].modules() if isinstance(m, CoordLayer))

    learned = algorithm.learn
    monkeypatch.setattr(algorithm, "learn", learn)
    score = sb3_contrib_algorithms.train(name, "xy", 24, num_envs=1, episodes=1, **SMALL[name])
    assert -5 <= score <= 5
    assert trained
    assert all(weight.abs().max() > 0 for weight in trained), "they start at 0"


def test_optuna_continues_its_study_and_prints_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--timesteps=1024", f"--out={tmp_path}", "--trials=1"]
    with filter_warnings():
        tune_with_optuna.main(arguments)
        study = tune_with_optuna.main(arguments)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 2
    assert study.best_value == max(trial.value for trial in study.trials if trial.value is not None)
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith("python -m rl fit --config rl/configs/quickstart.yaml --model.coords=xy --model.lr=")
    trained = PPO.load_from_checkpoint(tmp_path / "trial_1" / "last.ckpt")
    assert trained.hparams["lr"] == study.trials[1].params["lr"]
    assert trained.timesteps == 1024
    config = Path(__file__).parents[2] / "rl" / "configs" / "quickstart.yaml"
    settings = yaml.safe_load(config.read_text())["model"]["init_args"]
    others = settings.keys() - study.best_params.keys() - {"coords", "total_timesteps"}
    assert {name: trained.hparams[name] for name in others} == {name: settings[name] for name in others}


@pytest.mark.parametrize(
    ("example", "flag", "least"),
    [
        (tune_with_optuna, "--trials=0", 1),
        (sb3_coordconv_policy, "--n_steps=-1", 1),
        (sb3_coordconv_policy, "--batch_size=1", 2),
        (sb3_contrib_algorithms, "--episodes=0", 1),
    ],
)
def test_invalid_numbers_are_refused(
    example: ModuleType, flag: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        example.main([flag])
    assert capsys.readouterr().err.endswith(f"error: {flag}: must be at least {least}\n")


def test_the_game_that_the_example_of_a_policy_names_exists() -> None:
    (name,) = re.findall(r"--env (\S+)", sb3_coordconv_policy.__doc__ or "")
    module, _, game = name.partition(":")
    importlib.import_module(module)
    assert gymnasium.spec(game).id == game

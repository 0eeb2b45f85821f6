"""Two real processes that train together, against one that has all the games."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coordconv_apps.runs.summary import read_summary
from tests.helpers import forked
from tests.helpers.processes import TWO_PROCESSES
from tests.rl.tasks.test_on_policy import SMALL, counts, logged
from tests.rl.training import TROUBLE, TROUBLED, main

# Batches of 4 out of 48 samples: some of them are all of one process.
PPO = ["--model=PPO", "--model.n_steps=12", "--model.batch_size=4", "--model.n_epochs=3"]
TRAINING = ["--model.total_timesteps=240", "--data.eval_episodes=5"]


def run_of(runs: Path) -> Path:
    return runs / "rl" / "default" / "version_0"


def weights(run: Path, rank: int) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(run / f"rank_{rank}.pt", weights_only=True)
    return state


@pytest.mark.parametrize(
    "settings",
    [
        ["--model=A2C", "--model.normalize_advantage=true", "--data.num_eval_envs=3"],
        # The policy has soon come too far for the rest of a rollout. And one process has nothing to evaluate.
        [*PPO, "--model.lr=0.003", "--model.lr_schedule=linear", "--model.target_kl=0.002", "--data.num_eval_envs=1"],
    ],
    ids=["a2c", "ppo"],
)
def test_two_processes_with_half_the_games_each_are_one_with_all(settings: list[str], tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path / 'one'}", *SMALL, *TRAINING, *settings])
    log = tmp_path / "log.txt"
    command = ["fit", f"--runs_dir={tmp_path / 'two'}", *SMALL, *TRAINING, *settings, *TWO_PROCESSES]
    forked.run("tests.rl.training", *command, log=log, errors=(errors := tmp_path / "errors.txt"), processes=2)
    assert errors.read_text() == ""
    one, two = (run_of(tmp_path / name) for name in ("one", "two"))
    assert read_summary(two)["world_size"] == 2
    first, second = weights(two, 0), weights(two, 1)
    alone = weights(one, 0)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, alone[name], rtol=1e-4, atol=1e-5, msg=name)
    ours, theirs = ({k: v for k, v in counts(run).items() if k != "timings"} for run in (one, two))
    assert ours == theirs
    assert read_summary(one)["steps"] == read_summary(two)["steps"]
    if "--model.target_kl=0.002" in settings:
        assert read_summary(two)["steps"] < ours["rollouts"] * 3 * 12
    for metric in ("train/score", "train/length", "train/policy_loss", "val/score", "val/score_std", "lr"):
        assert logged(one, metric)
        assert logged(one, metric) == pytest.approx(logged(two, metric), rel=1e-3, abs=1e-5), metric


def test_the_second_process_ends_both_after_saving(tmp_path: Path) -> None:
    process = forked.start(
        "tests.rl.training",
        *["fit", f"--runs_dir={tmp_path}", *SMALL, *TRAINING, *TWO_PROCESSES],
        log=tmp_path / "log.txt",
        errors=(errors := tmp_path / "errors.txt"),
        environment={TROUBLE: "nan@12", TROUBLED: "1"},
    )
    assert forked.finish(process) == [2]
    where = "environment 3 failed in step 12:"
    assert errors.read_text() == f"error: model.game=dots: {where} its reward is NaN or infinite\n"
    run = run_of(tmp_path)
    assert read_summary(run)["status"] == "failed"
    assert counts(run)["timesteps"] == 40

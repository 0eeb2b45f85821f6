"""Training with Lightning in one process: what is played, how long, what is logged, and going on."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from stable_baselines3.common.policies import ActorCriticPolicy

import rl.learning.actions
from coordconv_apps.runs.summary import read_summary
from rl.data import EVALUATION_SEEDS, PREDICTION_SEED, RLData, training_seed
from rl.tasks import A2C
from tests.helpers.refusals import refusal
from tests.helpers.runs import load, rows
from tests.helpers.trainers import own_trainer
from tests.rl.training import TROUBLE, Dots, main

pytestmark = pytest.mark.usefixtures("dots")

SMALL = [
    "--model.game=dots",
    "--model.coords=xy",
    "--data.num_envs=4",
    "--data.steps_per_epoch=60",
    "--data.num_eval_envs=2",
    "--data.eval_episodes=3",
    "--trainer.max_epochs=-1",
    "--trainer.accelerator=cpu",
]


def fit(runs: Path, *args: str) -> Path:
    """A training; the folder of its run."""
    main(["fit", f"--runs_dir={runs}", *args])
    return runs / "rl" / "default" / "version_0"


def counts(run: Path) -> dict[str, Any]:
    return load(run)["rl"]  # type: ignore[no-any-return]  # of a checkpoint


def logged(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run) if row.get(name)]


# ------------------------------------------------------------------ precisions


def test_half_precision_is_the_same_in_rollouts_and_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    choices = rl.learning.actions._values_and_log_probs

    def spy(policy: ActorCriticPolicy, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        values, log_probs = choices(policy, observations)
        assert values.dtype == log_probs.dtype == torch.float32
        return values, log_probs

    monkeypatch.setattr(rl.learning.actions, "_values_and_log_probs", spy)
    fit(tmp_path, *SMALL, "--model.total_timesteps=20", "--trainer.precision=bf16-mixed")
    assert seen == {(False, True), (True, True)}


@pytest.mark.filterwarnings("ignore")  # of Lightning, which the command line keeps quiet
def test_scaled_gradients_are_clipped_at_their_true_size(tmp_path: Path) -> None:
    """As with 16-mixed on a GPU."""
    task = A2C(game="dots", total_timesteps=20, max_grad_norm=0.001)
    data = RLData(num_envs=4, steps_per_epoch=20, eval_episodes=3)
    norms = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401  # of Lightning's
            gradients = [weight.grad.flatten() for weight in task.policy.parameters() if weight.grad is not None]
            norms.append(float(torch.cat(gradients).norm()))

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    own_trainer(tmp_path, max_epochs=1, limit_val_batches=0, plugins=[plugin], callbacks=[Watch()]).fit(task, data)
    assert norms == [pytest.approx(0.001, rel=0.01)]


def test_precisions_that_weights_do_not_have_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = "--trainer.precision=bf16-true: must be one of 32-true, 16-mixed, bf16-mixed"
    assert refusal(capsys, fit, tmp_path, *SMALL, "--trainer.precision=bf16-true") == message


@pytest.mark.parametrize("epoch", [20, 60])
@pytest.mark.parametrize("game", ["dots", "steered"])
def test_nan_weights_are_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str], game: str, epoch: int) -> None:
    """In the middle of an epoch and at the end of one, for both kinds of actions."""
    arguments = [*SMALL, f"--model.game={game}", f"--data.steps_per_epoch={epoch}", "--model.optimizer=adam"]
    fit(tmp_path, *arguments, f"--model.total_timesteps={epoch}")
    capsys.readouterr()
    arguments += ["--ckpt_path=last", f"--model.total_timesteps={5 * epoch}"]
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *arguments, "--model.lr=1e30", "--model.vf_coef=2")
    reason = "training diverged (the policy produced NaN or infinity); lower one of them"
    message = f"error: model.lr=1e+30, model.vf_coef=2.0: {reason}\n"
    assert (stopped.value.code, capsys.readouterr().err) == (1, message)
    run = fit(tmp_path, *arguments, "--model.lr=0.0001")
    assert counts(run)["timesteps"] == 5 * epoch


# ------------------------------------------------------------------ a training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("trained")
    return fit(runs, "--model.total_timesteps=130", "--model.lr_schedule=linear", *SMALL)


def test_a_training_ends_with_the_rollout_that_completes_its_steps(trained: Path) -> None:
    # Rollouts of 5 steps in 4 games; epochs of 60 steps.
    assert counts(trained)["timesteps"] == 140
    assert counts(trained)["rollouts"] == counts(trained)["updates"] == 7
    assert logged(trained, "train/timesteps") == [60, 120, 140]
    summary = read_summary(trained)
    assert (summary["status"], summary["steps"], summary["epochs"]) == ("finished", 7, 3)


def test_training_logs_losses_scores_and_times(trained: Path) -> None:
    names = {name for row in rows(trained) for name, value in row.items() if value}
    measures = {"policy_loss", "value_loss", "entropy_loss", "loss"}
    expected = {f"train/{name}" for name in {"score", "length", "timesteps", "explained_variance", *measures}}
    expected |= {"val/score", "val/score_std", "val/length", "lr"}
    expected |= {"time/fps", "time/acting", "time/environment", "time/updating"}
    assert expected <= names
    assert logged(trained, "val/episodes") == [3, 3, 3]
    assert 3 <= logged(trained, "train/length")[0] <= 8


def test_the_line_of_an_epoch_has_the_metrics_that_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(
        tmp_path,
        *SMALL,
        "--model.total_timesteps=40",
        "--data.steps_per_epoch=20",
        "--trainer.check_val_every_n_epoch=2",
    )
    lines = re.findall(r"^\[ .*?\] epoch (.*)$", capsys.readouterr().out, re.MULTILINE)
    found = [re.sub(r" -?[\d.e+]+(?= |$)", "", line) for line in lines]
    assert found == [
        "1/2 train/timesteps train/score train/loss time/fps",
        "2/2 train/timesteps train/score train/loss val/score time/fps",
    ]


def test_the_learning_rate_falls_with_the_steps_played(trained: Path) -> None:
    # As in SB3, a rollout is counted before it is learned from; the last one is beyond the end.
    assert logged(trained, "lr") == pytest.approx([7e-4 * (1 - 60 / 130), 7e-4 * (1 - 120 / 130), 0], rel=1e-5)


@pytest.mark.parametrize("algorithm", ["a2c", "ppo"])
def test_an_interrupted_training_resumes_with_its_schedule(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["--model.total_timesteps=160", f"--model={algorithm.upper()}", "--model.lr_schedule=linear"]
    settings += ["--model.n_steps=5"]
    if algorithm == "ppo":
        settings += ["--model.batch_size=10", "--model.n_epochs=2", "--model.clip_schedule=linear"]
    monkeypatch.setenv(TROUBLE, "SIGINT@22")  # in the fifth rollout, the second of the second epoch
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *settings, *SMALL)
    assert stopped.value.code == 130
    run = tmp_path / "rl" / "default" / "version_0"
    assert counts(run)["timesteps"] == 100
    monkeypatch.delenv(TROUBLE)
    fit(tmp_path, "--ckpt_path=last")
    assert counts(run)["timesteps"] == 160
    assert counts(run)["rollouts"] == 8
    assert counts(run)["updates"] == (8 if algorithm == "a2c" else 16)
    peak = 7e-4 if algorithm == "a2c" else 3e-4
    assert logged(run, "train/timesteps") == [60, 120, 160]
    assert logged(run, "lr") == pytest.approx([peak * (1 - done / 160) for done in (60, 120, 160)], abs=1e-9)
    # What was learned before is not lost: the optimizer has made all steps.
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"][0]["step"]
    assert steps == (8 if algorithm == "a2c" else 8 * 2 * 2)


def test_a_finished_training_has_nothing_to_do_until_it_gets_more_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, *SMALL, "--model.total_timesteps=20")
    finished = read_summary(run)
    fit(tmp_path, "--ckpt_path=last")
    assert "nothing to do: 20 timesteps are done, and model.total_timesteps=20" in capsys.readouterr().out
    assert read_summary(run) == finished
    fit(tmp_path, "--ckpt_path=last", "--model.total_timesteps=40")
    assert counts(run)["timesteps"] == 40


def test_an_epoch_that_the_training_stops_within_is_logged_once(tmp_path: Path) -> None:
    run = fit(tmp_path, *SMALL, "--model.total_timesteps=120", "--trainer.max_steps=4")  # an epoch has 3
    assert counts(run)["timesteps"] == read_summary(run)["metrics"]["train/timesteps"] == 80
    fit(tmp_path, "--ckpt_path=last", "--trainer.max_steps=-1")
    assert logged(run, "train/timesteps") == [60, 120]
    assert len(logged(run, "train/score")) == len(logged(run, "train/loss")) == len(logged(run, "time/fps")) == 2


def test_games_of_another_seed_or_of_a_resumed_training_are_others() -> None:
    firsts = sorted(training_seed(seed, rollouts) for seed in range(10) for rollouts in range(10))
    assert all(last - first >= 1024 for first, last in pairwise(firsts))  # environment i has the first one's seed + i
    evaluations = max(*EVALUATION_SEEDS.values(), PREDICTION_SEED)
    assert all(2 * evaluations < first < 2**30 for first in firsts)


def test_stable_baselines3_continues_a_training(trained: Path, tmp_path: Path) -> None:
    task = A2C.load_from_checkpoint(trained / "checkpoints" / "last.ckpt", weights_only=True)
    task.algorithm.save(tmp_path / "a2c.zip")
    algorithm = stable_baselines3.A2C.load(tmp_path / "a2c.zip", env=Dots(4, 0), device="cpu")
    assert algorithm.num_timesteps == 140
    assert algorithm.learn(40, reset_num_timesteps=False).num_timesteps == 180


# ------------------------------------------------------------------ what is wrong


def test_a_broken_environment_ends_the_training_after_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TROUBLE, "crash@12")
    told = refusal(capsys, fit, tmp_path, "--model.total_timesteps=100", *SMALL)
    assert told == "model.game=dots: one of the environments 0 to 3 failed in step 12: OSError: the emulator is gone"
    run = tmp_path / "rl" / "default" / "version_0"
    assert counts(run)["timesteps"] == 40  # two whole rollouts, in the middle of an epoch
    monkeypatch.delenv(TROUBLE)
    fit(tmp_path, "--ckpt_path=last")
    assert counts(run)["timesteps"] == 100
    assert logged(run, "train/timesteps") == [60, 100]

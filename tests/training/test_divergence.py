"""A training whose losses or weights become NaN ends with one line, and its last sound checkpoint stays."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from coordconv_apps.cli.app import run
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.divergence import CHECK_EVERY, Loss, Moment, find_divergence
from coordconv_apps.training.task import Task
from tests.cli.test_resume import Main, fit
from tests.helpers.runs import load
from tests.toy.__main__ import main
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

NAN, INF = torch.tensor(torch.nan), torch.tensor(torch.inf)


class TwoRatesTask(ToyTask):
    """Has a second learning rate.

    Args:
        lr: Learning rate.
        second_lr: Another one.
    """

    divergence_args: ClassVar[tuple[str, ...]] = ("second_lr",)

    def __init__(self, lr: float = 0.01, second_lr: float = 0.1) -> None:
        super().__init__(lr=lr)


def two_rates_main(args: list[str]) -> None:
    run("toy", TwoRatesTask, ToyData, args)


def failing_fit(runs: Path, *args: str, capsys: pytest.CaptureFixture[str], main: Main = main) -> str:
    """Return the line with which a training ends that has diverged."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        fit(runs, *args, main=main)
    assert stopped.value.code == 1
    summary = read_summary(runs / "toy" / "default" / "version_0")
    assert summary["status"] == "failed"
    assert str(summary["error"]).startswith("Diverged: model.lr=")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("error: ").rstrip()


def test_a_loss_that_is_nan_ends_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=1")
    before = load(run)["state_dict"]
    error = failing_fit(tmp_path, "--ckpt_path=last", "--model.lr=1e30", capsys=capsys)
    assert error == (
        "model.lr=1e+30: training diverged (train/loss is inf at step 6 with learning rate 8.33e+29); lower it"
    )
    assert load(run)["run"]["epochs"] == 1
    assert all(torch.equal(value, before[name]) for name, value in load(run)["state_dict"].items())


def test_weights_that_are_nan_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damage(task: ToyTask, *_: object) -> None:
        if task.global_step == 10:  # the end of the second epoch, whose losses were finite
            nn.init.constant_(next(task.parameters()), torch.nan)

    monkeypatch.setattr(ToyTask, "on_train_batch_end", damage)
    error = failing_fit(tmp_path, "--trainer.limit_val_batches=0", capsys=capsys)
    assert "training diverged (a weight is NaN or infinite at step 10 with learning rate 0.00737)" in error
    assert load(tmp_path / "toy" / "default" / "version_0")["run"]["epochs"] == 1


def test_losses_are_checked_at_intervals_within_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    monkeypatch.setattr(task, "_trainer", None)
    looked: list[int] = []
    monkeypatch.setattr(
        "coordconv_apps.training.task.find_divergence", lambda losses, *_, **__: looked.append(len(losses))
    )
    for _ in range(2 * CHECK_EVERY + 1):
        task.log_train({"train/a": torch.tensor(1.0), "train/b": torch.tensor(2.0)}, 1)
    assert looked == [2 * CHECK_EVERY] * 2


@pytest.mark.parametrize(
    ("values", "weight", "scaled", "expected"),
    [
        ([1.0, 2.0], 1.0, False, None),
        ([1.0, torch.inf, torch.nan], 1.0, False, "loss is inf at step 1 with learning rate 0.1"),
        ([1.0, torch.nan], 1.0, True, None),  # the scaler has skipped that step
        ([1.0, torch.nan], torch.nan, True, "loss is nan at step 1 with learning rate 0.1"),
        ([torch.nan, torch.nan], 1.0, True, "loss is nan at step 0 with learning rate 0.1"),
        ([], -torch.inf, False, "a weight is NaN or infinite at step 9 with learning rate 0.2, 0.3"),
    ],
)
def test_find_divergence_reports_the_first_loss_or_weight_that_is_not_finite(
    values: list[float], weight: float, scaled: bool, expected: str | None
) -> None:
    losses = [Loss(Moment(step, (0.1,)), "loss", torch.tensor(value)) for step, value in enumerate(values)]
    weights = iter([torch.zeros(2), torch.tensor([weight])])
    assert find_divergence(losses, weights, Moment(9, (0.2, 0.3)), scaled=scaled) == expected


def test_an_overflow_in_the_optimizer_is_divergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = failing_fit(tmp_path, "--model.lr=1e38", capsys=capsys)
    assert error == "model.lr=1e+38: training diverged (an update of the weights overflows); lower it"
    error = failing_fit(tmp_path / "two", "--model.lr=1e38", main=two_rates_main, capsys=capsys)
    assert error.startswith("model.lr=1e+38, model.second_lr=0.1: training diverged (an update of the weights")

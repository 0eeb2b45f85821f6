"""A training that stops within an epoch, by a limit or a callback, resumes as if it had not stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from coordconv_apps.cli.app import run
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.weight_averaging import Averaging
from tests.cli.test_resume import EPOCHS, Main, fit, manual_main, plateau_main
from tests.helpers.runs import assert_same, assert_same_runs, load, rows
from tests.toy.__main__ import main
from tests.toy.data import ToyBatch, ToyData
from tests.toy.tasks import ToyTask


class AveragedToyTask(ToyTask):
    """Averages its weights, and draws random numbers in validations.

    Args:
        lr: Learning rate at the beginning.
        dropout: Share of the channels left out in training.
    """

    def __init__(self, lr: float = 0.01, dropout: float = 0.2) -> None:
        super().__init__(lr=lr, dropout=dropout)

    def validation_step(self, batch: ToyBatch, batch_idx: int) -> None:
        torch.rand(3)
        super().validation_step(batch, batch_idx)

    def configure_callbacks(self) -> list[Callback]:
        return [Averaging(0.9)]


def averaged_main(args: list[str]) -> None:
    run("toy", AveragedToyTask, ToyData, args)


class StopAt(Callback):
    """Asks the trainer to stop as ``max_time`` does: after a batch, counted over all epochs.

    Args:
        batch: The batch's number, from 1.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        trainer.should_stop |= trainer.fit_loop.total_batch_idx + 1 == self.batch


def assert_resumes_exactly(
    runs: Path, stop: list[str], goes_on: list[str], *args: str, main: Main = main, epochs: int = 1
) -> None:
    """Assert that a training which ended by ``stop`` after ``epochs`` whole ones, and was resumed, equals a whole one.

    The validation that Lightning adds where a callback stops a training is not part of the whole one.
    """
    whole = fit(runs / "whole", *goes_on, *args, main=main)
    stopped = fit(runs / "parts", *stop, *args, main=main)
    assert load(stopped)["run"]["place"] == "stop"
    assert load(stopped)["run"]["epochs"] == read_summary(stopped)["epochs"] == epochs
    assert read_summary(stopped)["status"] == "finished"
    assert fit(runs / "parts", "--ckpt_path=last", *goes_on, main=main) == stopped
    assert read_summary(stopped)["epochs"] == EPOCHS
    if "StopAt" not in str(stop):
        assert_same_runs(stopped, whole)
        return
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "coordconv_apps", "global_step"):
        assert_same(load(stopped)[key], load(whole)[key], key)
    assert [row for row in rows(stopped) if not row["val/distance"]] == [
        row for row in rows(whole) if not row["val/distance"]
    ]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--trainer.val_check_interval=2"],
        ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=4"],
        ["--data.num_workers=1"],
    ],
)
def test_run_stopped_by_max_steps_resumes_exactly(
    tmp_path: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert_resumes_exactly(tmp_path, ["--trainer.max_steps=7"], ["--trainer.max_steps=15"], *args)
    main(["fit", f"--runs_dir={tmp_path / 'parts'}", "--ckpt_path=last", "--trainer.max_epochs=9"])
    assert "last.ckpt has trained for 15 steps, and --trainer.max_steps=15" in capsys.readouterr().out


def test_a_used_up_time_limit_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, "--trainer.max_time=00:00:00:00")
    assert "stopped  the time limit of 0 s is used up; raise trainer.max_time" in capsys.readouterr().out


def test_without_validation_the_last_checkpoint_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, "--trainer.max_steps=3")
    out = capsys.readouterr().out
    assert f"last     {run}/checkpoints/last.ckpt (there was no validation)" in out
    assert "test --ckpt_path last" in out
    assert "best.ckpt" not in out


@pytest.mark.parametrize("main", [plateau_main, manual_main, averaged_main])
def test_run_stopped_with_other_optimizers_resumes_exactly(tmp_path: Path, main: Main) -> None:
    scale = 3 if main is manual_main else 1  # it makes three steps in a batch
    steps = [f"--trainer.max_steps={7 * scale - scale // 2}"], [f"--trainer.max_steps={15 * scale}"]
    assert_resumes_exactly(tmp_path, *steps, main=main)


EARLY = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/distance"]


@pytest.mark.parametrize(
    ("stop", "args", "epochs"),
    [
        ([*EARLY, "--trainer.callbacks.stopping_threshold=9"], ["--trainer.val_check_interval=2"], 0),
        (["--trainer.callbacks=tests.cli.test_stop_within_epoch.StopAt", "--trainer.callbacks.batch=7"], [], 1),
        (
            ["--trainer.callbacks=tests.cli.test_stop_within_epoch.StopAt", "--trainer.callbacks.batch=8"],
            ["--trainer.accumulate_grad_batches=2"],
            1,
        ),
    ],
)
def test_run_stopped_by_a_callback_resumes_exactly(
    tmp_path: Path, stop: list[str], args: list[str], epochs: int
) -> None:
    assert_resumes_exactly(tmp_path, stop, ["--trainer.callbacks=null"], *args, epochs=epochs)

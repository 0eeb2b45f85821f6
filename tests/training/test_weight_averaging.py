"""The average of the weights: its values, who uses it, and that it survives interruptions to the bit."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from coordconv_apps.cli.app import run
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.weight_averaging import Averaging
from coordconv_apps.utils.warning_filters import filter_warnings
from tests.cli.test_resume import EPOCHS, fit, interrupted_fit, resumed_fit
from tests.helpers.runs import assert_same, assert_same_runs, load
from tests.helpers.trainers import own_trainer
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

DECAY = 0.9


class AveragedTask(ToyTask):
    """The toy task with all kinds of tensors: weights, statistics, a counter and a table.

    Args:
        decay: Of the average; None for none.
        dropout: As the toy task's.
        trouble: As the toy task's; also ``SIGINT@end`` of the second epoch.
    """

    def __init__(self, decay: float | None = DECAY, dropout: float = 0.2, trouble: str | None = None) -> None:
        super().__init__(coords="xy", dropout=dropout, trouble=trouble)
        self.decay = decay
        self.net.insert(1, nn.BatchNorm2d(4))
        self.register_buffer("table", torch.arange(400))

    def configure_callbacks(self) -> list[Callback]:
        return [] if self.decay is None else [Averaging(self.decay)]

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self.trouble == "SIGINT@end" and self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)


class WatchedTask(AveragedTask):
    """Notes its weights after each step.

    Args:
        decay: As above.
    """

    history: ClassVar[list[dict[str, Tensor]]] = []

    def __init__(self, decay: float | None = DECAY) -> None:
        super().__init__(decay=decay)

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ANN401  # Lightning's
        self.history.append({name: value.clone() for name, value in self.state_dict().items()})


def main(args: list[str]) -> None:
    run("toy", AveragedTask, ToyData, args)


def watched_main(args: list[str]) -> None:
    run("toy", WatchedTask, ToyData, args)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("uninterrupted"), main=main)


def assert_same_averaged_runs(one: Path, other: Path) -> None:
    assert_same_runs(one, other)  # with the average, in state_dict
    for name in ("last", "best"):
        for key in ("current_model_state", "averaging_state"):
            assert_same(load(one, name)[key], load(other, name)[key], f"{name}/{key}")


def task_with(weights: dict[str, Tensor]) -> AveragedTask:
    task = AveragedTask().eval()
    task.load_state_dict(weights)
    return task


def distance(weights: dict[str, Tensor]) -> float:
    """The mean distance on the data to validate and to test with."""
    data = ToyData()
    data.setup("validate")
    images, positions = data.val_set.tensors
    with torch.no_grad():
        return float((task_with(weights)(images) - positions).norm(dim=1).mean())


# ---------------------------------------------------------------------- values


def test_the_average_is_that_of_the_formula(tmp_path: Path) -> None:
    WatchedTask.history.clear()
    last = load(fit(tmp_path, main=watched_main))
    assert len(WatchedTask.history) == last["averaging_state"]["n_averaged"] == 15
    for name, average in last["state_dict"].items():
        values = torch.stack([weights[name] for weights in WatchedTask.history])
        if average.is_floating_point():
            shares = [DECAY**14] + [(1 - DECAY) * DECAY ** (14 - step) for step in range(1, 15)]
            expected = torch.einsum("s,s...->...", torch.tensor(shares, dtype=torch.float64), values.double())
            torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)
            assert not torch.equal(average, values[-1]), name
        else:
            assert torch.equal(average, values[-1]), name
    assert torch.equal(last["state_dict"]["table"], torch.arange(400))


def test_the_training_itself_does_not_change(tmp_path: Path, uninterrupted: Path) -> None:
    plain = load(fit(tmp_path, "--model.decay=null", main=main))
    assert {"current_model_state", "averaging_state"}.isdisjoint(plain)
    averaged = load(uninterrupted)
    assert_same(dict(averaged["current_model_state"]), dict(plain["state_dict"]))
    assert_same(averaged["optimizer_states"], plain["optimizer_states"])
    assert averaged["run"]["metrics"]["train/loss"] == plain["run"]["metrics"]["train/loss"]
    assert plain["run"]["metrics"]["val/distance"] == pytest.approx(distance(plain["state_dict"]), abs=1e-6)
    assert averaged["run"]["metrics"]["val/distance"] != plain["run"]["metrics"]["val/distance"]


def test_no_decay_is_no_average(tmp_path: Path) -> None:
    last = load(fit(tmp_path, "--model.decay=0", main=main))
    assert_same(dict(last["state_dict"]), dict(last["current_model_state"]))


# --------------------------------------------------------------- interruptions


@pytest.mark.parametrize(
    ("trouble", "place"),
    [
        ("SIGTERM@train7", "batch"),
        ("SIGINT@train5", "validation"),  # after the last batch of an epoch comes the validation
        ("SIGINT@val5", "validation"),
        ("SIGINT@end", "epoch"),
        ("SIGTERM@val9", "validation"),  # the last batch of the last one
    ],
)
def test_averaged_run_interrupted_anywhere_resumes_exactly(
    tmp_path: Path, uninterrupted: Path, trouble: str, place: str
) -> None:
    run = interrupted_fit(tmp_path, trouble, main=main)
    stopped = load(run)
    assert stopped["run"]["place"] == place
    assert not torch.equal(stopped["state_dict"]["net.0.weight"], stopped["current_model_state"]["net.0.weight"])
    assert_same_averaged_runs(resumed_fit(tmp_path, main=main), uninterrupted)


def test_averaged_run_with_accumulated_gradients_resumes_exactly(tmp_path: Path) -> None:
    args = ("--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=2")
    uninterrupted = fit(tmp_path / "whole", *args, main=main)
    last = load(uninterrupted)
    assert last["averaging_state"]["n_averaged"] == last["global_step"] == 9  # not after every batch
    interrupted_fit(tmp_path / "parts", "SIGINT@val4", *args, main=main)
    assert_same_averaged_runs(resumed_fit(tmp_path / "parts", *args, main=main), uninterrupted)


@pytest.mark.parametrize("name", ["last", "best"])
def test_averaged_run_with_more_epochs_equals_one_training(tmp_path: Path, uninterrupted: Path, name: str) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=2", main=main)
    assert load(run, name)["run"]["place"] == {"last": "epoch", "best": "validated"}[name]
    main(["fit", f"--runs_dir={tmp_path}", f"--ckpt_path={name}", f"--trainer.max_epochs={EPOCHS}"])
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert_same(load(run)[key], load(uninterrupted)[key], key)


# ------------------------------------------------------------- who uses it


def test_the_best_checkpoint_is_chosen_by_the_average_and_holds_it(uninterrupted: Path) -> None:
    best = load(uninterrupted, "best")
    assert best["run"]["best"]["value"] == pytest.approx(distance(best["state_dict"]), abs=1e-6)
    assert abs(distance(best["state_dict"]) - distance(best["current_model_state"])) > 1e-4


@pytest.mark.parametrize(("command", "metric"), [("validate", "val/distance"), ("test", "test/distance")])
def test_the_average_is_evaluated(tmp_path: Path, uninterrupted: Path, command: str, metric: str) -> None:
    checkpoint = uninterrupted / "checkpoints" / "last.ckpt"
    main([command, f"--runs_dir={tmp_path}", f"--ckpt_path={checkpoint}"])
    message = read_summary(tmp_path / "toy" / "default" / f"{command}_0")["metrics"]
    assert message[metric] == pytest.approx(distance(load(uninterrupted)["state_dict"]), abs=1e-6)


def test_the_average_is_exported(tmp_path: Path, uninterrupted: Path) -> None:
    checkpoint = uninterrupted / "checkpoints" / "last.ckpt"
    main(["export", f"--runs_dir={tmp_path}", f"--ckpt_path={checkpoint}", "--format=torch_export"])
    (path,) = (tmp_path / "toy" / "default" / "export_0" / "export").glob("*.pt2")
    task = task_with(load(uninterrupted)["state_dict"])
    (images,) = task.example_inputs()
    with torch.no_grad():
        exported = torch.export.load(path).module()(images)
        torch.testing.assert_close(exported, task(images))
        assert not torch.allclose(exported, task_with(load(uninterrupted)["current_model_state"])(images))


def test_the_task_holds_the_average_after_a_fit_and_another_command(tmp_path: Path) -> None:
    task, data = AveragedTask(decay=None), ToyData()
    trainer = own_trainer(tmp_path, max_epochs=1, callbacks=[Averaging(DECAY)])  # one for both commands
    with filter_warnings():
        trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    saved = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert_same(dict(task.state_dict()), dict(saved["state_dict"]))
    assert not torch.equal(saved["state_dict"]["net.0.weight"], saved["current_model_state"]["net.0.weight"])
    with filter_warnings():
        (metrics,) = trainer.validate(task, datamodule=data, verbose=False)
    assert metrics["val/distance"] == pytest.approx(distance(saved["state_dict"]), abs=1e-6)
    assert_same(dict(task.state_dict()), dict(saved["state_dict"]))


# ------------------------------------------------------------------- the rest


def test_the_average_is_on_the_device_of_the_task() -> None:
    averaging, task, trainer = Averaging(), AveragedTask(), Trainer(logger=False, accelerator="cpu")
    averaging.setup(trainer, task, "fit")
    task.to("meta")  # as the trainer moves it to a GPU, after `setup`
    averaging.on_fit_start(trainer, task)
    assert averaging._average_model is not None
    assert {tensor.device.type for tensor in averaging._average_model.module.state_dict().values()} == {"meta"}
    assert averaging._average_model.n_averaged.device.type == "cpu"  # each step looks at it


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_another_precision_are_refused(precision: Any) -> None:  # noqa: ANN401  # a literal of Lightning's
    trainer = Trainer(logger=False, accelerator="cpu", precision=precision)
    with pytest.raises(ValueError, match=rf"^trainer.precision={precision}: must be 32-true, 16-mixed or bf16-mixed"):
        Averaging().setup(trainer, AveragedTask(), "fit")


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, math.nan])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=rf"^decay={decay}: must be in \[0, 1\)$"):
        Averaging(decay)

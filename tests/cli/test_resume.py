"""An interrupted and resumed training equals an uninterrupted one to the bit, wherever it was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from coordconv_apps.cli.app import run
from coordconv_apps.runs.summary import read_summary, write_summary
from coordconv_apps.training.schedules import lr_factor
from coordconv_apps.utils.files import TEMPORARY_SUFFIX
from tests.helpers.refusals import refusal
from tests.helpers.runs import assert_same, assert_same_runs, load, rows
from tests.toy.__main__ import main
from tests.toy.data import ToyBatch, ToyData
from tests.toy.tasks import ToyTask

EPOCHS = 3  # of 5 batches of 8 samples; a validation has 3

Main = Callable[[list[str]], None]


class PlateauTask(ToyTask):
    """Its learning rate depends on the metrics of the epochs before.

    Args:
        lr: Learning rate at the beginning.
        dropout: Share of the channels left out in training.
        trouble: As the toy task's.
    """

    def __init__(self, lr: float = 0.01, dropout: float = 0.2, trouble: str | None = None) -> None:
        super().__init__(lr=lr, dropout=dropout, trouble=trouble)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/distance"}}


class ManualTask(ToyTask):
    """Steps two optimizers by itself, one of them twice: as a GAN does.

    Args:
        lr: Learning rate.
        trouble: As the toy task's.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset({"trouble"})

    def __init__(self, lr: float = 0.01, trouble: str | None = None) -> None:
        super().__init__(lr=lr, trouble=trouble)
        self.automatic_optimization = False

    def training_step(self, batch: ToyBatch, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        one, other = optimizers
        for optimizer in (one, other, other):
            optimizer.zero_grad()
            self.manual_backward(self._step(batch)[0])
            optimizer.step()
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return [torch.optim.Adam(layer.parameters(), lr=self.lr) for layer in list(self.net.children())[0:4:3]], []


class ScheduledTask(ToyTask):
    """Its learning rate depends on the length of the training: to ask for that sets the loader up early.

    Args:
        lr: Learning rate at the beginning.
        dropout: Share of the channels left out in training.
        trouble: As the toy task's.
    """

    def __init__(self, lr: float = 0.01, dropout: float = 0.2, trouble: str | None = None) -> None:
        super().__init__(lr=lr, dropout=dropout, trouble=trouble)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        factor = lr_factor("cosine", self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def plateau_main(args: list[str]) -> None:
    run("toy", PlateauTask, ToyData, args)


def manual_main(args: list[str]) -> None:
    run("toy", ManualTask, ToyData, args)


def scheduled_main(args: list[str]) -> None:
    run("toy", ScheduledTask, ToyData, args)


def fit(runs: Path, *args: str, main: Main = main) -> Path:
    main(["fit", f"--runs_dir={runs}", f"--trainer.max_epochs={EPOCHS}", "--trainer.log_every_n_steps=1", *args])
    return runs / "toy" / "default" / "version_0"


def interrupted_fit(runs: Path, trouble: str, *args: str, main: Main = main) -> Path:
    with pytest.raises(SystemExit) as stopped:
        fit(runs, f"--model.trouble={trouble}", *args, main=main)
    assert stopped.value.code == (130 if "SIGINT" in trouble else 143)
    return runs / "toy" / "default" / "version_0"


def resumed_fit(runs: Path, *args: str, main: Main = main) -> Path:
    return fit(runs, "--ckpt_path=last", "--model.trouble=null", *args, main=main)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize(
    ("trouble", "place"),
    [
        ("SIGINT@train1", "batch"),
        ("SIGTERM@train4", "batch"),
        ("SIGINT@train5", "validation"),  # after the last batch of an epoch comes the validation
        ("SIGTERM@train7", "batch"),
        ("SIGINT@val1", "validation"),
        ("SIGTERM@val6", "validation"),
        ("SIGINT@val9", "validation"),
    ],
)
def test_run_interrupted_anywhere_resumes_exactly(
    tmp_path: Path, uninterrupted: Path, trouble: str, place: str
) -> None:
    run = interrupted_fit(tmp_path, trouble)
    assert load(run)["run"]["place"] == place
    assert read_summary(run)["status"] == "interrupted"
    assert resumed_fit(tmp_path) == run
    assert read_summary(run)["seconds"] > 0
    assert_same_runs(run, uninterrupted)


def test_run_interrupted_twice_resumes_exactly(tmp_path: Path, uninterrupted: Path) -> None:
    interrupted_fit(tmp_path, "SIGINT@train3")
    with pytest.raises(SystemExit):
        fit(tmp_path, "--ckpt_path=last", "--model.trouble=SIGTERM@train6")
    assert_same_runs(resumed_fit(tmp_path), uninterrupted)


@pytest.mark.parametrize(
    ("args", "troubles"),
    [
        (["--trainer.max_steps=15"], ["train2", "val2"]),
        (["--trainer.val_check_interval=2"], ["train2", "train5", "val1"]),
        (["--trainer.val_check_interval=2", "--trainer.max_steps=15"], ["train5", "val7"]),
        (["--trainer.check_val_every_n_epoch=2", "--trainer.max_steps=13"], ["train5", "train6"]),
        (["--trainer.accumulate_grad_batches=2"], ["train3", "val5"]),
        (["--trainer.limit_val_batches=0"], ["train5", "train12"]),
        (["--data.num_workers=1"], ["train8"]),
    ],
)
def test_run_interrupted_under_other_schedules_resumes_exactly(
    tmp_path: Path, args: list[str], troubles: list[str]
) -> None:
    uninterrupted = fit(tmp_path / "whole", *args)
    for trouble in troubles:
        interrupted_fit(tmp_path / trouble, f"SIGTERM@{trouble}", *args)
        assert_same_runs(resumed_fit(tmp_path / trouble, *args), uninterrupted)


@pytest.mark.parametrize("main", [plateau_main, manual_main, scheduled_main])
def test_run_interrupted_with_other_optimizers_resumes_exactly(tmp_path: Path, main: Main) -> None:
    uninterrupted = fit(tmp_path / "whole", main=main)
    for trouble in ("train7", "val5"):
        interrupted_fit(tmp_path / trouble, f"SIGINT@{trouble}", main=main)
        assert_same_runs(resumed_fit(tmp_path / trouble, main=main), uninterrupted)
    if main is scheduled_main:
        assert load(uninterrupted)["optimizer_states"][0]["param_groups"][0]["lr"] == 0
    if main is plateau_main:
        assert load(uninterrupted)["optimizer_states"][0]["param_groups"][0]["lr"] < 0.001


def test_seen_batches_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    step = ToyTask.training_step

    def watched(task: ToyTask, batch: ToyBatch, batch_idx: int) -> torch.Tensor:
        seen.append((task.current_epoch, batch[1]))
        return step(task, batch, batch_idx)

    monkeypatch.setattr(ToyTask, "training_step", watched)
    interrupted_fit(tmp_path, "SIGINT@train7")
    resumed_fit(tmp_path)
    assert [epoch for epoch, _ in seen] == [0] * 5 + [1] * 5 + [2] * 5
    for epoch in range(EPOCHS):
        positions = torch.cat([positions for e, positions in seen if e == epoch])
        data = ToyData()
        data.setup("fit")
        expected = data.train_set.tensors[1]
        assert sorted(map(tuple, positions.tolist())) == sorted(map(tuple, expected.tolist()))


def test_resuming_with_more_epochs_equals_one_training(
    tmp_path: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=2")
    capsys.readouterr()
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last", f"--trainer.max_epochs={EPOCHS}"])
    message = capsys.readouterr().out
    assert "changed: trainer.max_epochs=3 on the command line, 2 in the checkpoint" in message
    assert "resumes " in message
    assert_same_runs(run, uninterrupted)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == EPOCHS
    assert yaml.safe_load((run / "config_until_epoch_2.yaml").read_text())["trainer"]["max_epochs"] == 2


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ("--data.batch_size=16", 3),  # as with twice as many processes
        ("--data.batch_size=4", 10),
        ("--trainer.accumulate_grad_batches=2", 3),
        ("--trainer.max_steps=20", 5),
    ],
)
def test_a_schedule_keeps_its_place_if_an_epoch_has_other_steps(tmp_path: Path, change: str, steps: int) -> None:
    fit(tmp_path, "--trainer.max_epochs=2", main=scheduled_main)
    run = interrupted_fit(
        tmp_path, "SIGINT@train1", "--ckpt_path=last", "--trainer.max_epochs=4", change, main=scheduled_main
    )
    checkpoint = load(run)
    (schedule,), (optimizer,) = checkpoint["lr_schedulers"], checkpoint["optimizer_states"]
    done = checkpoint["global_step"] - 2 * 5  # since the run was resumed after two epochs of 5 steps
    assert 0 < done < steps, "a test of nothing else"
    assert schedule["last_epoch"] == 2 * steps + done
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0.01 * lr_factor("cosine", 4 * steps)(2 * steps + done))


def test_an_accumulation_that_changes_does_not_move_the_schedule(tmp_path: Path) -> None:
    name = "--trainer.callbacks"
    accumulation = [f"{name}=GradientAccumulationScheduler", f"{name}.scheduling={{0: 1, 1: 5}}"]
    uninterrupted = fit(tmp_path / "whole", *accumulation, main=scheduled_main)
    interrupted_fit(tmp_path / "part", "SIGINT@val5", *accumulation, main=scheduled_main)
    assert_same_runs(resumed_fit(tmp_path / "part", *accumulation, main=scheduled_main), uninterrupted)


def test_a_checkpoint_may_be_named_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path)
    monkeypatch.chdir(run / "checkpoints")
    capsys.readouterr()
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last.ckpt"])
    assert "nothing to do" in capsys.readouterr().out


def test_a_copy_of_a_checkpoint_belongs_to_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=1")
    write_summary(run, {**read_summary(run), "status": "interrupted"})
    (run / "kept").mkdir()
    copy = Path(shutil.copy(run / "checkpoints" / "last.ckpt", run / "kept" / "a.ckpt"))
    main(["fit", f"--runs_dir={tmp_path}", f"--ckpt_path={copy}"])
    assert "nothing to do" in capsys.readouterr().out
    assert read_summary(run)["status"] == "interrupted"


def test_the_next_command_is_about_this_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = fit(tmp_path, "--trainer.max_epochs=1")
    fit(tmp_path, "--trainer.max_epochs=1")
    assert f" test --ckpt_path best --runs_dir {tmp_path}" in capsys.readouterr().out
    fit(tmp_path, f"--ckpt_path={older}/checkpoints/last.ckpt", "--trainer.max_epochs=2")
    assert f" test --ckpt_path {older}/checkpoints/best.ckpt --runs_dir {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "name"),
    [("--name=2024-05-01", "2024-05-01"), ("--config={trainer: {max_epochs: 1, accelerator: cpu}}", "default")],
)
def test_a_run_is_found_by_the_flags_that_named_it(tmp_path: Path, flag: str, name: str) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", flag])
    main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=best", flag])
    assert (tmp_path / "toy" / name / "version_0" / "test_0").is_dir()


def test_a_finished_run_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    (run / "pictures" / f".dot.png.0123abcd{TEMPORARY_SUFFIX}").touch()  # of a process that was killed at the end
    capsys.readouterr()
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last"])
    message = capsys.readouterr().out
    assert "nothing to do" in message
    assert "3 epochs" in message
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


def test_the_command_line_changes_the_learning_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = interrupted_fit(tmp_path, "SIGINT@train7", "--toy_pictures.every_n_epochs=2")
    resumed_fit(tmp_path, "--model.lr=0.001")
    assert yaml.safe_load((run / "config.yaml").read_text())["toy_pictures"] == {"every_n_epochs": 2}
    assert "changed: model.lr=0.001 on the command line, 0.01 in the checkpoint" in capsys.readouterr().out
    checkpoint = load(run)
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.001 * 0.97**15)  # the toy's schedule
    assert checkpoint["lr_schedulers"][0]["base_lrs"] == [0.001]
    assert checkpoint["hyper_parameters"]["lr"] == 0.001
    assert checkpoint["run"]["config"]["model"]["init_args"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--model.coords=xy", "--model.coords=xy on the command line, none in the checkpoint"),
        ("--model.width=5", "--model.width=5 on the command line, 4 in the checkpoint"),
        ("--data.batch_size=4", "batch_size times processes=4"),
        ("--data.samples=48", "training samples=48"),
        ("--data.seed=1", "data.seed=1"),
    ],
)
def test_arguments_that_a_resumed_run_cannot_change_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    interrupted_fit(tmp_path, "SIGINT@train7")
    assert message in refusal(capsys, resumed_fit, tmp_path, change)


def test_resuming_from_best_equals_one_training(tmp_path: Path, uninterrupted: Path) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=2")
    best = load(run, "best")["run"]
    assert best["place"] == "validated"
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=best", f"--trainer.max_epochs={EPOCHS}"])
    assert_same(load(run)["state_dict"], load(uninterrupted)["state_dict"])
    assert load(run)["run"]["epochs"] == EPOCHS


def test_checkpoint_of_another_run_starts_a_new_run(tmp_path: Path, uninterrupted: Path) -> None:
    first = fit(tmp_path / "a", "--trainer.max_epochs=2")
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = fit(tmp_path / "b", f"--ckpt_path={first}/checkpoints/last.ckpt")
    assert before == {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert_same(load(second)["state_dict"], load(uninterrupted)["state_dict"])
    assert (second / "checkpoints" / "best.ckpt").is_file()


def test_a_crash_resumes_from_the_last_epoch(tmp_path: Path, uninterrupted: Path) -> None:
    with pytest.raises(ValueError, match="a defect"):
        fit(tmp_path, "--model.trouble=error@train8")
    run = tmp_path / "toy" / "default" / "version_0"
    summary = read_summary(run)
    assert summary["status"] == "failed"
    assert summary["error"] == "ValueError: a defect of the program"
    assert len(rows(run)) > len([row for row in rows(uninterrupted) if int(row["step"]) < 5])
    assert_same_runs(resumed_fit(tmp_path), uninterrupted)

"""Flags of the trainer: invalid values, missing devices, and callbacks and loggers that the user adds."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from coordconv_apps.cli.trainer import CommandTrainer, check_devices, check_started_processes
from coordconv_apps.utils.errors import UserError
from tests.helpers.planted import Planted
from tests.helpers.refusals import refusal
from tests.helpers.runs import rows
from tests.toy.__main__ import main
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask

EPOCH = ["--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
CALLBACK = "--trainer.callbacks"


class PictureLogger(CSVLogger):
    """Takes pictures, as the logger for Weights & Biases does.

    Args:
        save_dir: Folder of the logs.
    """

    pictures: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert step is not None
        self.pictures.append((key, step))


class SilentBar(TQDMProgressBar):
    """A progress bar of the user's own, which prints nothing."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=0)


def failing(runs: Path, *args: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line with which a training ends that cannot work."""
    return refusal(capsys, main, ["fit", f"--runs_dir={runs}", *EPOCH, *args])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--trainer.val_check_interval=0"],
            "--trainer.val_check_interval=0: must be a number of batches or a fraction",
        ),
        (
            ["--trainer.val_check_interval=0.0"],
            "--trainer.val_check_interval=0.0: must be a number of batches or a frac",
        ),
        (["--trainer.strategy=ddp_spawn"], "--trainer.strategy=ddp_spawn: choose ddp, whose"),
        (["--trainer.strategy=fsdp"], "--trainer.strategy=fsdp: choose ddp, which has all parameters on"),
        (["--trainer.strategy=DeepSpeedStrategy"], "choose ddp, which has all parameters on"),
        (["--trainer.val_check_interval=-1"], "--trainer.val_check_interval=-1: You have passed invalid value"),
        (
            ["--trainer.check_val_every_n_epoch=0"],
            "--trainer.check_val_every_n_epoch=0: must be an integer of at least 1",
        ),
        (["--trainer.max_steps=0"], "--trainer.max_steps=0: must be an integer of at least 1, or -1 for no limit"),
        (["--trainer.max_epochs=0"], "--trainer.max_epochs=0: must be an integer of at least 1, or -1 for no limit"),
        (["--trainer.log_every_n_steps=-1"], "--trainer.log_every_n_steps=-1: must be an integer of at least 0"),
        (["--trainer.gradient_clip_val=-0.5"], "--trainer.gradient_clip_val=-0.5: must be at least 0"),
        (["--trainer.limit_train_batches=0"], "--trainer.limit_train_batches=0: must be a number of batches or a frac"),
        (
            ["--trainer.accumulate_grad_batches=0"],
            "--trainer.accumulate_grad_batches=0: must be an integer of at least 1",
        ),
        (
            [f"{CALLBACK}=LearningRateFinder"],
            "--trainer.callbacks=LearningRateFinder: not supported, since config.yaml",
        ),
        ([f"{CALLBACK}=BatchSizeFinder"], "choose data.batch_size yourself"),
        (
            [f"{CALLBACK}=StochasticWeightAveraging", f"{CALLBACK}.swa_lrs=0.01", f"{CALLBACK}.device=cpu"],
            "--trainer.callbacks=StochasticWeightAveraging: not supported, since no checkpoint would contain its",
        ),
    ],
)
def test_invalid_trainer_flags_are_refused(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failing(tmp_path, *args, capsys=capsys)
    assert not list(tmp_path.rglob("version_*"))


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
def test_error_of_an_unknown_metric_lists_the_known_ones(
    callback: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failing(tmp_path, f"{CALLBACK}={callback}", f"{CALLBACK}.monitor=val/iou", capsys=capsys)
    assert callback in error
    assert "val/iou" in error
    assert "val/distance" in error


def test_a_timer_has_the_default_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", f"--runs_dir={tmp_path}", *EPOCH, f"{CALLBACK}=Timer", f"{CALLBACK}.duration=00:00:00:00"])
    assert "the time limit of 0 s is used up" in capsys.readouterr().out


def test_given_callbacks_and_loggers_are_added_to_the_packages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = {
        "callbacks": {  # a single one
            "class_path": "EarlyStopping",
            "init_args": {"monitor": "val/distance", "verbose": True},
        },
        "logger": {
            "class_path": "tests.cli.test_trainer.PictureLogger",
            "init_args": {"save_dir": str(tmp_path)},
        },
        "profiler": "simple",
        "enable_model_summary": True,
    }
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"trainer": trainer}))
    PictureLogger.pictures.clear()
    logging.getLogger("lightning.pytorch").addHandler(caplog.handler)
    try:
        main(["fit", f"--runs_dir={tmp_path}", f"--config={config}", *EPOCH])
    finally:
        logging.getLogger("lightning.pytorch").removeHandler(caplog.handler)
    for words in ("Metric val/distance improved", "FIT Profiler Report", "Trainable params"):
        assert words in caplog.text
    assert "GPU available" not in caplog.text
    run = tmp_path / "toy" / "own" / "version_0"
    (added,) = (tmp_path / "lightning_logs").glob("version_0/metrics.csv")
    losses = [row["train/loss_step"] for row in rows(run) if row["train/loss_step"]]
    assert len(losses) == 5
    assert added.read_text().count("\n") >= 5
    assert PictureLogger.pictures == [("pictures/dot", 4)]
    assert (run / "pictures" / "dot.png").is_file()


def test_a_progress_bar_of_ones_own_replaces_the_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", f"--runs_dir={tmp_path}", *EPOCH, f"{CALLBACK}=tests.cli.test_trainer.SilentBar"])
    assert "epoch 1/1" not in capsys.readouterr().out


def given_by(**arguments: object) -> Any:  # noqa: ANN401  # in the place of the parser's
    return SimpleNamespace(**arguments)


def test_two_nodes_need_a_launcher_and_device_values_are_left_to_lightning() -> None:
    given = given_by(num_nodes=2, accelerator="cpu", devices=1)
    for launcher in ("MASTER_ADDR", "SLURM_JOB_ID"):
        check_devices(given, {launcher: "somewhere"})
    with pytest.raises(UserError, match="num_nodes=2"):
        check_devices(given, {"HOME": "/"})
    for devices in ("auto", -1, [0], "1"):
        check_devices(given_by(num_nodes=1, accelerator="cpu", devices=devices), {})
    check_devices(given_by(num_nodes=1, accelerator="cuda", devices=1000), {})  # for Lightning to refuse


def test_several_processes_for_one_device_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}
    with pytest.raises(UserError, match="devices=1: srun has started 4 processes"):
        check_started_processes(given_by(num_nodes=1, devices=1), slurm)
    check_started_processes(given_by(num_nodes=2, devices=2), slurm)
    check_started_processes(given_by(num_nodes=1, devices=1), {"SLURM_NTASKS": "4"})  # without srun
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    words = "--trainer.devices=1: torchrun has started 2 processes"
    assert refusal(capsys, main, ["fit", f"--runs_dir={tmp_path}", *EPOCH]).startswith(words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "export"])
def test_no_command_unpickles_a_checkpoint(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file were replaced after the command line has read it, on a machine that trusts its checkpoints."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "default_root_dir": tmp_path}
    trainer = CommandTrainer(accelerator="cpu", max_epochs=1, **quiet)
    trainer.checkpoint = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "planted": Planted(tmp_path / "ran")}, trainer.checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        getattr(trainer, command)(ToyTask(), ToyData())
    assert not (tmp_path / "ran").exists()

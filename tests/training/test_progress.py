"""Pictures, progress and logs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from PIL import Image

from coordconv_apps.cli.app import run
from coordconv_apps.cli.run_report import RunReport
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.training.progress import PlainProgress
from coordconv_apps.utils.tables import beside_real_reference, table
from tests.toy.__main__ import main
from tests.toy.data import ToyData
from tests.toy.tasks import ToyPictures, ToyTask


class CountedPictures(ToyPictures):
    """Notes when it draws, and uses up random numbers.

    Args:
        every_n_epochs: How often.
    """

    drawn: list[int]
    broken = False

    def draw(self, task: LightningModule, datamodule: LightningDataModule) -> dict[str, Image.Image]:
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in task.modules())
        assert isinstance(datamodule, ToyData)
        self.drawn.append(task.current_epoch)
        torch.rand(100)
        if self.broken:
            raise RuntimeError("no picture today")
        colour = (len(self.drawn), 0, 0)
        return {"one": Image.new("RGB", (4, 3), colour), "two": Image.new("L", (2, 2), 7)}


def fit(runs: Path, every: int, epochs: int = 4) -> Path:
    CountedPictures.drawn = []
    args = ["fit", f"--runs_dir={runs}", f"--trainer.max_epochs={epochs}", f"--counted_pictures.every_n_epochs={every}"]
    run("toy", ToyTask, ToyData, args, callbacks=[CountedPictures])
    return runs / "toy" / "default" / "version_0"


@pytest.mark.parametrize(("every", "drawn"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2, 4]), (0, [4])])
def test_when_pictures_are_drawn(tmp_path: Path, every: int, drawn: list[int]) -> None:
    folder = fit(tmp_path, every)
    assert CountedPictures.drawn == drawn
    pictures = {path.name: Image.open(path) for path in (folder / "pictures").iterdir()}
    assert set(pictures) == {"one.png", "two.png"}
    assert pictures["one.png"].getpixel((0, 0)) == (len(drawn), 0, 0)  # the last one
    assert pictures["two.png"].getpixel((0, 0)) == 7


def test_pictures_change_nothing_of_a_training(tmp_path: Path) -> None:
    with_pictures, without = fit(tmp_path / "with", 1), fit(tmp_path / "without", 0)
    assert (with_pictures / "metrics.csv").read_text() == (without / "metrics.csv").read_text()


def test_pictures_are_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]  # it has none

    events = event_accumulator.EventAccumulator(str(fit(tmp_path, 2)))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/one", "pictures/two"}
    assert [event.step for event in events.Images("pictures/one")] == [10, 20]
    assert "val/distance" in events.Tags()["scalars"]


def test_a_picture_that_fails_leaves_the_network_in_training_mode(tmp_path: Path) -> None:
    modes: list[bool] = []

    class Watched(CountedPictures):
        broken = True

        def on_exception(self, trainer: Any, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ANN401  # unused
            modes.extend(module.training for module in pl_module.modules())

    Watched.drawn = []
    with pytest.raises(RuntimeError, match="no picture today"):
        run("toy", ToyTask, ToyData, ["fit", f"--runs_dir={tmp_path}"], callbacks=[Watched])
    assert all(modes)
    assert modes


@pytest.mark.parametrize("every", [-1])
def test_impossible_arguments(every: int) -> None:
    with pytest.raises(ValueError, match="every_n_epochs=-1: must be an integer of at least 0"):
        ToyPictures(every)


def test_plain_progress_breaks_a_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PlainProgress, "_now_and_then", _always)
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    out = capsys.readouterr().out
    assert "epoch 1/1 batch 5/5" in out
    assert "validating batch 3/3" in out
    main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "testing batch 3/3" in capsys.readouterr().out
    main(["predict", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "predicting batch 3/3" in capsys.readouterr().out


_patient = PlainProgress._now_and_then


def _always(progress: PlainProgress, stage: str, batch: int, batches: float) -> None:
    progress.seconds = -1
    _patient(progress, stage, batch, batches)


def test_plain_progress_is_silent_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress(seconds=1000)
    progress._now_and_then("training", 1, 2)
    progress.disable()
    progress._say("anything")
    assert capsys.readouterr().out == ""


def test_table() -> None:
    assert table([("a", 1.0), ("long name", 0.123456789), ("c", "text")]).splitlines() == [
        "  a          1",
        "  long name  0.12346",
        "  c          text",
    ]
    assert table([]) == ""


def test_table_of_rows_that_end_early() -> None:
    rows = [("", "", "third"), ("a", 0.5), ("long name", 12.0, 0.25), ("b", "much longer text"), ("c",)]
    assert table(rows).splitlines() == [
        "                 third",
        "  a          0.5",
        "  long name  12  0.25",
        "  b          much longer text",
        "  c",
    ]


def test_values_of_real_data_stand_beside_their_metrics() -> None:
    metrics = {
        "test/b": 2.0,
        "test/floor/b": 0.2,
        "test/a": 1.0,
        "test/red/a": 3.0,
        "test/floor/red/a": 0.3,
        "test/floor/lonely": 9.0,
        "val/b": 4.0,
        "seconds": 5.0,
        "test/flooring": 6.0,
    }
    assert beside_real_reference(metrics) == [
        ("test/b", 2.0, 0.2),
        ("test/a", 1.0, None),
        ("test/red/a", 3.0, 0.3),
        ("test/floor/lonely", 9.0, None),
        ("val/b", 4.0, None),
        ("seconds", 5.0, None),
        ("test/flooring", 6.0, None),
    ]
    assert beside_real_reference({}) == []


def printed(metrics: dict[str, float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a command's end that tell of its metrics."""
    report = RunReport("toy", "tests.toy")
    of_command = {"command": "test", "status": "finished", "seconds": 1.0, "checkpoint": None}
    report.summary = {**of_command, "metrics": metrics, "run_facts": {}}
    report._print()
    return capsys.readouterr().out.split("\n  summary")[0].strip("\n").splitlines()[1:]


def test_the_end_of_a_command_shows_real_data_in_a_column_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed({"test/b": 0.5, "test/c": 2.0, "test/floor/b": 0.25}, capsys) == [
        "               real data",
        "  test/b  0.5  0.25",
        "  test/c  2",
    ]
    assert printed({"test/b": 0.5}, capsys) == ["  test/b  0.5"]
    assert printed({}, capsys) == []


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_rows_and_columns(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.log_metrics({"b": 1.5, "epoch": 0}, step=0)
    log.save()
    log.log_metrics({"b": 2.5, "epoch": 0}, step=1)
    log.save()  # added to the file
    log.log_metrics({"a": 0.1, "epoch": 1}, step=2)
    log.finalize("success")  # written again, with a new column
    assert read(tmp_path / "metrics.csv") == [
        {"epoch": "0.0", "step": "0", "a": "", "b": "1.5"},
        {"epoch": "0.0", "step": "1", "a": "", "b": "2.5"},
        {"epoch": "1.0", "step": "2", "a": "0.1", "b": ""},
    ]


def test_csv_of_a_resumed_run_keeps_what_the_checkpoint_knows(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(4):
        log.log_metrics({"a": float(step)}, step)
    log.save()
    before = read(tmp_path / "metrics.csv")
    resumed = CsvLog(tmp_path, keep_until=1)
    resumed.log_metrics({"a": 20.0}, 2)
    resumed.save()
    after = read(tmp_path / "metrics.csv")
    assert after[:2] == before[:2]
    assert [row["a"] for row in after] == ["0.0", "1.0", "20.0"]


def test_csv_without_the_half_row_of_a_crash(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(2):
        log.log_metrics({"a": float(step), "b": 1.0}, step)
    log.save()
    whole = read(tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("0.0,")
    resumed = CsvLog(tmp_path, keep_until=5)
    resumed.log_metrics({"a": 2.0, "b": 1.0}, 2)
    resumed.save()
    assert [row["step"] for row in read(tmp_path / "metrics.csv")] == ["0", "1", "2"]
    assert read(tmp_path / "metrics.csv")[:2] == whole


def test_csv_of_nothing(tmp_path: Path) -> None:
    CsvLog(tmp_path).finalize("success")
    log = CsvLog(tmp_path)
    log.save()
    assert list(tmp_path.iterdir()) == []

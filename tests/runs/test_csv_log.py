"""metrics.csv: rows, columns, and the file of a resumed run."""

from __future__ import annotations

from pathlib import Path

from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.metrics import read_curve, read_metrics, read_rows
from tests.helpers.runs import rows


def test_csv_has_a_row_for_each_step_and_a_column_for_each_metric(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.log_metrics({"b": 1.5, "epoch": 0}, step=0)
    log.save()
    log.log_metrics({"b": 2.5, "epoch": 0}, step=1)
    log.save()  # added to the file
    log.log_metrics({"a": 0.1, "epoch": 1}, step=2)
    log.finalize("success")  # written again, with a new column
    assert rows(tmp_path) == [
        {"epoch": "0.0", "step": "0", "a": "", "b": "1.5"},
        {"epoch": "0.0", "step": "1", "a": "", "b": "2.5"},
        {"epoch": "1.0", "step": "2", "a": "0.1", "b": ""},
    ]


def test_csv_of_a_resumed_run_keeps_what_the_checkpoint_knows(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(4):
        log.log_metrics({"a": float(step)}, step)
    log.save()
    before = rows(tmp_path)
    resumed = CsvLog(tmp_path, keep_until=1)
    resumed.log_metrics({"a": 20.0}, 2)
    resumed.save()
    after = rows(tmp_path)
    assert after[:2] == before[:2]
    assert [row["a"] for row in after] == ["0.0", "1.0", "20.0"]


def test_csv_without_the_half_row_of_a_crash(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step in range(2):
        log.log_metrics({"a": float(step), "b": 1.0}, step)
    log.save()
    whole = rows(tmp_path)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("0.0,")
    resumed = CsvLog(tmp_path, keep_until=5)
    resumed.log_metrics({"a": 2.0, "b": 1.0}, 2)
    resumed.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]
    assert rows(tmp_path)[:2] == whole


def test_log_without_metrics_writes_no_file(tmp_path: Path) -> None:
    CsvLog(tmp_path).finalize("success")
    log = CsvLog(tmp_path)
    log.save()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_row_hides_no_other(tmp_path: Path) -> None:
    lines = ['epoch,step,"a, b"', "0,0,1.5", '0,1,"2', "0,2,3.5,7", "nan,3,1", "1,4,5.5", "1,"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    assert read_metrics(tmp_path) == [{"epoch": 0, "step": 0, "a, b": 1.5}, {"epoch": 1, "step": 4, "a, b": 5.5}]
    assert read_curve(tmp_path, "a, b") == {0: 1.5, 1: 5.5}
    assert read_rows(tmp_path / "metrics.csv")[1], "the file is damaged"

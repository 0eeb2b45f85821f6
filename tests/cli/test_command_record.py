"""The lines at the end of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordconv_apps.cli.app import run
from coordconv_apps.cli.command_record import print_end
from coordconv_apps.runs.summary import Summary, read_summary
from tests.toy.data import ToyData
from tests.toy.tasks import ToyTask


class DependsOnData(ToyTask):
    """Its best metric depends on the data."""

    def setup(self, stage: str) -> None:
        self.monitor, self.monitor_mode = "val/closeness", "max"  # type: ignore[misc, assignment]


def printed(metrics: dict[str, float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a command's end that tell of its metrics."""
    of_command: Summary = {"command": "test", "status": "finished", "seconds": 1.0, "checkpoint": None}
    summary: Summary = {**of_command, "metrics": metrics, "run_facts": {}}
    print_end(summary, Path("test_0"), page=None, next_command=None, used_up_time=None)
    return capsys.readouterr().out.split("\n  summary")[0].strip("\n").splitlines()[1:]


def test_the_end_of_a_command_shows_real_data_in_a_column_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed({"test/b": 0.5, "test/c": 2.0, "test/floor/b": 0.25}, capsys) == [
        "               real data",
        "  test/b  0.5  0.25",
        "  test/c  2",
    ]
    assert printed({"test/b": 0.5}, capsys) == ["  test/b  0.5"]
    assert printed({}, capsys) == []


def test_the_summary_has_the_best_metric_of_the_data(tmp_path: Path) -> None:
    run("toy", DependsOnData, ToyData, ["validate", f"--runs_dir={tmp_path}", "--allow_random_weights"])
    summary = read_summary(tmp_path / "toy" / "default" / "validate_0")
    assert (summary["headline"], summary["monitor_mode"]) == ("val/closeness", "max")

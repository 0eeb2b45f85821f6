"""A comparison of an application on the suite's own command line: what the other tests' stand-in pretends to do."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.runs.summary import read_summary
from tests.compare.harness import Comparison


def test_comparison_of_the_toy_application(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    out = comparison.out
    args = ["tests.toy", "--config", str(comparison.config), "--out", str(out), "--trainer.accelerator=cpu"]
    assert compare.main([*args, "--jobs", "2"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    rows = comparison.rows()
    assert [(row["arm"], row["status"], row["epochs"]) for row in rows] == [
        ("none", "finished", "3"),
        ("xy", "finished", "3"),
    ]
    assert int(rows[0]["parameters"]) < int(rows[1]["parameters"])
    for row in rows:
        best = read_summary(_runs(out, row["arm"]) / "version_0")["best"]
        # The toy's test set is its validation set.
        assert float(row["test/distance"]) == pytest.approx(best["value"], rel=1e-4)
        assert f"pictures: {_runs(out, row['arm']) / 'version_1' / 'pictures'}" in printed

    # Killed after its last epoch, but before its end: there is nothing left to train, only to test.
    run = _runs(out, "xy") / "version_0"
    summary = read_summary(run)
    (run / "summary.json").write_text(json.dumps({**summary, "status": "running", "best": None, "metrics": {}}))
    shutil.rmtree(run.with_name("version_1"))
    assert compare.main(args) == 0, capsys.readouterr().out
    assert comparison.rows() == rows
    assert read_summary(run)["best"] == summary["best"]


def test_the_toy_application_with_values_of_an_argument(
    comparison: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[subprocess.CompletedProcess[str]] = []
    run = subprocess.run

    def run_once(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401  # what run takes
        if not shown:  # `fit --help` of the application takes seconds
            shown.append(run(*args, **options))
        return shown[0]

    monkeypatch.setattr("coordconv_apps.compare.over.subprocess.run", run_once)
    args = ["tests.toy", "--config", str(comparison.config), "--out", str(comparison.out), "--arms", "xy"]
    args += ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--over"]
    assert compare.main([*args, "model.widht", "5"]) == 2
    message = "error: --over model.widht: tests.toy has no such argument; the closest are model.width"
    assert capsys.readouterr().err.startswith(message)

    assert compare.main([*args, "model.width", "5"]) == 0, capsys.readouterr().out
    [row] = comparison.rows()
    assert (row["model.width"], row["status"]) == ("5", "finished")
    # Weights and biases of 3 x 3 convolutions: of an image with 2 coordinates, then of the width.
    assert int(row["parameters"]) == 5 * (27 + 1) + 2 * (9 * 5 + 1)
    assert (comparison.out / "runs" / "toy" / "5-xy-seed0" / "version_1").is_dir()


def _runs(out: Path, arm: str) -> Path:
    return out / "runs" / "toy" / f"{arm}-seed0"

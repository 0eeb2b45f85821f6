"""A comparison of an application on the suite's own command line: what the other tests' stand-in pretends to do."""

import json
import shutil
from pathlib import Path

import pytest

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.running.runs import read_summary
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


def _runs(out: Path, arm: str) -> Path:
    return out / "runs" / "toy" / f"{arm}-seed0"

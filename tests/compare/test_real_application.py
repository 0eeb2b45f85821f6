"""A comparison of an application on the package's own command line: what the other tests' stand-in pretends to do."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.compare import processes
from coordconv_apps.compare.application import merged_config
from coordconv_apps.compare.gpus import requested_gpus
from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.runs.summary import read_summary
from tests.compare.harness import Comparison
from tests.helpers import forked
from tests.helpers.html import check_page


class ForkedProcess:
    """Stands in for `subprocess.Popen`: forks the commands of jobs from a process that has imported everything."""

    def __init__(self, command: list[str], stdout: IO[bytes], env: Mapping[str, str], **unused: object) -> None:
        python, option, module, *args = command
        assert (python, option) == (sys.executable, "-m")
        self._process = forked.start(module, *args, log=Path(stdout.name), environment=env)

    def wait(self) -> int | None:
        [status] = forked.finish(self._process)
        return status


@pytest.mark.usefixtures("drawn_figures")
def test_toy_application_is_compared_and_reported(
    comparison: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[dict[str, Any]] = []

    def ask(plan: Plan, job: Job) -> dict[str, Any]:
        configs.append(merged_config(plan, job))
        return configs[-1]

    monkeypatch.setattr(compare, "merged_config", ask)
    starter = SimpleNamespace(Popen=ForkedProcess, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(processes, "subprocess", starter)
    monkeypatch.setenv("COORDCONV_REPORT", "1")
    comparison.config.write_text("trainer:\n  max_epochs: 3\n  devices: 3\n")
    out = comparison.out
    args = ["tests.toy", "--config", str(comparison.config), "--out", str(out)]
    args += ["--trainer", "{accelerator: cpu, devices: 1}", "--over", "model.width", "5"]
    assert compare.main([*args, "--jobs", "2"]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    assert len(configs) == 1
    assert requested_gpus(configs[0]["trainer"]["devices"]) == 1, "the flag overrides the config"
    rows = comparison.rows()
    assert [(row["arm"], row["model.width"], row["status"], row["epochs"]) for row in rows] == [
        ("none", "5", "finished", "3"),
        ("xy", "5", "finished", "3"),
    ]
    # Weights and biases of 3 x 3 convolutions: of an image, with 2 coordinates or without, then of the width.
    assert [int(row["parameters"]) for row in rows] == [5 * (9 * n + 1) + 2 * (9 * 5 + 1) for n in (1, 3)]
    for row in rows:
        best = read_summary(_runs(out, row["arm"]) / "version_0")["best"]
        # The toy's test set is its validation set.
        assert float(row["test/distance"]) == pytest.approx(best["value"], rel=1e-4)
    page = check_page(out / "report.html")
    assert f"report:   {out / 'report.html'} (open it" in printed
    assert {image["alt"] for image in page.attributes("img")} == {"dot of none", "dot of xy"}
    assert "argument none xy model.coords none xy" in page.text
    (said,) = [line for line in printed.splitlines() if line.startswith("test/distance: xy is ")]
    assert said in page.text
    monkeypatch.setenv("COORDCONV_REPORT", "0")

    # Killed after its last epoch, but before its end: there is nothing left to train, only to test.
    monkeypatch.setattr(compare, "merged_config", lambda plan, job: {})  # it takes seconds
    run = _runs(out, "xy") / "version_0"
    summary = read_summary(run)
    (run / "summary.json").write_text(json.dumps({**summary, "status": "running", "best": None, "metrics": {}}))
    shutil.rmtree(run / "test_0")
    assert compare.main(args) == 0, capsys.readouterr().out
    assert comparison.rows() == rows
    assert read_summary(run)["best"] == summary["best"]


def test_the_application_checks_its_arguments_before_any_run(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["tests.toy", "--config", str(comparison.config), "--out", str(comparison.out), "--over"]
    assert compare.main([*args, "model.widht", "5"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no argument --model.widht (close: --model.width")
    assert not comparison.out.exists()


def _runs(out: Path, arm: str) -> Path:
    return out / "runs" / "toy" / f"5-{arm}-seed0"

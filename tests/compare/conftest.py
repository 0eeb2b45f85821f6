"""The fixture of the tests of `compare`."""

from pathlib import Path

import pytest

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.compare import processes, progress, report_files
from tests.compare.harness import ROOT, Comparison


@pytest.fixture
def drawn_figures() -> None:
    """Draw the figures of comparisons, which takes longer than their runs: for tests that look at them."""


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Comparison:
    monkeypatch.chdir(ROOT)  # where `python -m tests.compare.fakeapp` finds the application
    monkeypatch.setenv("FAKEAPP_CALLS", str(tmp_path / "calls.jsonl"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(compare, "visible_gpus", lambda environment: [])
    if "drawn_figures" not in request.fixturenames:
        monkeypatch.setattr(report_files, "plot_results", lambda results, title="": b"a figure")
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress, "READ_SECONDS", 0.02)
    return Comparison(tmp_path)

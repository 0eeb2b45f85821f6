"""summary.json: always valid JSON."""

from __future__ import annotations

import json
from pathlib import Path

from coordconv_apps.runs.summary import read_summary, write_summary


def test_summaries_are_json_whatever_the_metrics(tmp_path: Path) -> None:
    write_summary(tmp_path, {"metrics": {"a": float("nan"), "b": float("inf"), "c": 1.5}, "best": [float("-inf")]})
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "metrics": {"a": None, "b": None, "c": 1.5},
        "best": [None],
    }
    (tmp_path / "summary.json").write_text("{half a file")
    assert read_summary(tmp_path) == {}

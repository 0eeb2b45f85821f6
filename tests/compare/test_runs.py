"""Runs of a comparison: which are made, which are kept, where they run, and what is written and printed."""

import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from coordconv_apps.compare import __main__ as compare
from coordconv_apps.compare import gpus
from tests.compare.fakeapp.__main__ import iou
from tests.compare.harness import APP, Comparison, flag
from tests.helpers.limits import file_size_limit


@pytest.mark.usefixtures("drawn_figures")
def test_comparison_runs_fit_and_test_for_every_arm_and_seed(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--seeds", "0", "3", "--trainer.max_epochs=4", "--model.delay", "0") == 0

    names = ["none-seed0", "xy-seed0", "none-seed3", "xy-seed3"]
    assert comparison.stages() == [f"{stage} {name}" for name in names for stage in ("fit", "test")]
    for call, name in zip(comparison.calls()[::2], names, strict=True):
        assert flag(call, "--model.coords") == name.partition("-")[0]
        assert flag(call, "--seed_everything") == name[-1]
        assert flag(call, "--trainer.max_epochs") == "4"
        assert call["args"][call["args"].index("--model.delay") + 1] == "0"
        assert "CUDA_VISIBLE_DEVICES" not in call["env"]
        assert "OMP_NUM_THREADS" not in call["env"]
    for row in comparison.rows():
        assert row["status"] == "finished"
        assert float(row["test/iou"]) == pytest.approx(iou(row["arm"], int(row["seed"])))
        assert (row["parameters"], row["seconds"], row["epochs"], row["error"]) == (
            {"none": "1000", "xy": "1100"}[row["arm"]],
            "2.0",
            "4",
            "",
        )
        assert "test/undefined" not in row
    with Image.open(comparison.out / "comparison.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10

    printed = capsys.readouterr().out
    markdown = (comparison.out / "comparison.md").read_text()
    for text in (printed, markdown):
        assert "0.515 ± 0.021" in text
        assert "+0.1 |" in text
        assert "+100 |" in text  # parameters
    assert f"python -m coordconv_apps.compare {APP} --config" in markdown
    for name in names:
        assert f"finished {name}" in printed
        assert f"(log: {comparison.out / 'logs' / name}.log)" in printed
    for suffix in ("md", "csv", "png"):
        assert str(comparison.out / f"comparison.{suffix}") in printed


def test_epochs_are_shown_as_plain_lines(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--arms", "xyr", "--model.delay=0.3") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    shown = [line for line in lines if line.startswith("xyr-seed0: epoch")]
    every = [f"xyr-seed0: epoch {n}/3 val/iou {iou('xyr', 0) * n / 3:.4g}" for n in (1, 2, 3)]
    assert shown  # a busy machine may miss one
    assert shown == [line for line in every if line in shown]


def test_one_arm_and_one_seed_have_no_difference_and_no_interval(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    assert comparison.run("--arms", "xyr") == 0
    printed = capsys.readouterr().out
    assert "difference" not in printed
    assert "±" not in printed.split("Mean")[0]
    assert [row["arm"] for row in comparison.rows()] == ["xyr"]


def test_finished_runs_are_kept_and_new_seeds_added(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--seeds", "0") == 0
    shutil.rmtree(comparison.out / "runs" / "fakeapp" / "xy-seed0" / "version_0" / "test_0")  # its test
    assert comparison.run("--seeds", "0", "1") == 0
    assert comparison.stages()[4:] == [
        "test xy-seed0",
        "fit none-seed1",
        "test none-seed1",
        "fit xy-seed1",
        "test xy-seed1",
    ]
    assert "1 finished before" in capsys.readouterr().out
    assert comparison.run("--seeds", "0", "1") == 0
    assert len(comparison.calls()) == 9
    assert len(comparison.rows()) == 4


def test_a_users_own_runs_in_the_folder_do_not_change_the_comparison(comparison: Comparison) -> None:
    assert comparison.run() == 0
    rows = comparison.rows()
    xy = comparison.out / "runs" / "fakeapp" / "xy-seed0"
    summary = json.loads((xy / "version_0" / "test_0" / "summary.json").read_text())
    shutil.copytree(xy / "version_0", xy / "version_1")  # as `fit --config` and `test --ckpt_path` write them
    shutil.copytree(xy / "version_0" / "test_0", xy / "version_0" / "test_1")
    for folder in (xy / "version_0" / "test_1", xy / "version_1" / "test_0"):
        (folder / "summary.json").write_text(json.dumps(summary | {"metrics": {"test/iou": 0.01}}))
    assert comparison.run() == 0
    assert comparison.rows() == rows


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_failed_run_is_named_and_the_others_continue(
    comparison: Comparison, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = f"--model.fail={stage}:xy-seed0"
    assert comparison.run("--seeds", "0", "1", broken) == 1
    printed = capsys.readouterr().out
    why = f"{stage} ended with status 1: error: the fake network exploded"
    assert f"failed:   xy-seed0: {why} (log: {comparison.out / 'logs' / 'xy-seed0.log'})" in printed
    rows = {f"{row['arm']}-seed{row['seed']}": row for row in comparison.rows()}
    assert [name for name, row in rows.items() if row["status"] == "finished"] == [
        "none-seed0",
        "none-seed1",
        "xy-seed1",
    ]
    assert rows["xy-seed0"]["error"] == why
    assert rows["xy-seed0"]["test/iou"] == ""
    assert "xy-seed0 failed" in (comparison.out / "comparison.md").read_text()

    # Once more: only what failed is tried again.
    before = len(comparison.calls())
    assert comparison.run("--seeds", "0", "1", broken) == 1
    assert comparison.stages()[before:] == [f"{stage} xy-seed0"]


@pytest.mark.usefixtures("drawn_figures")
def test_comparison_ends_with_status_1_and_a_plot_if_all_runs_fail(comparison: Comparison) -> None:
    assert comparison.run("--arms", "none", "--model.fail=fit:none-seed0") == 1
    assert [row["status"] for row in comparison.rows()] == ["failed"]
    assert (comparison.out / "comparison.png").is_file()


def test_killed_run_is_a_failed_run(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--model.fail=kill:none-seed0") == 1
    printed = capsys.readouterr().out
    assert "failed:   none-seed0: fit was killed by SIGKILL: (no output) (log: " in printed
    assert "finished xy-seed0" in printed


def test_jobs_run_side_by_side_and_share_the_cores(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_cores", lambda: 5)
    assert comparison.run("--seeds", "0", "1", "--jobs", "2", "--model.delay=0.3") == 0
    calls = comparison.calls()
    assert {call["env"]["OMP_NUM_THREADS"] for call in calls} == {"2"}
    edges = [(call["start"], 1) for call in calls] + [(call["end"], -1) for call in calls]
    running = list(itertools.accumulate(step for _, step in sorted(edges)))
    assert max(running) == 2


def test_jobs_are_spread_over_the_gpus(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "visible_gpus", lambda environment: ["4", "7"])
    assert comparison.run("--seeds", "0", "1", "--model.delay=0.1") == 0  # as many jobs as GPUs
    seen = {flag(call, "--name"): call["env"]["CUDA_VISIBLE_DEVICES"] for call in comparison.calls()}
    assert len(seen) == 4
    assert set(seen.values()) == {"4", "7"}


@pytest.mark.parametrize(("devices", "expected"), [(["1", "3", "2"], {"0,1,2"}), (["1", "0,1"], {None})])
def test_every_slot_has_the_gpus_of_the_largest_job(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, devices: list[str], expected: set[str | None]
) -> None:
    monkeypatch.setattr(compare, "visible_gpus", lambda environment: ["0", "1", "2", "3"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert comparison.run("--arms", "xy", "--over", "trainer.devices", *devices) == 0
    assert {call["env"].get("CUDA_VISIBLE_DEVICES") for call in comparison.calls()} == expected


def test_a_full_disk_ends_the_comparison(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run("--model.fail=full:xy-seed0") == 3
    expected = "error: xy-seed0: /runs/last.ckpt: cannot be written: no space left on device\n"
    assert capsys.readouterr().err == expected
    assert not (comparison.out / "comparison.md").exists()


@pytest.mark.parametrize(("size", "name"), [(0, "comparison.json"), (220, "logs/none-seed0.log")])
def test_a_limit_on_file_sizes_ends_the_comparison(
    comparison: Comparison, capsys: pytest.CaptureFixture[str], size: int, name: str
) -> None:
    with file_size_limit(size):
        assert comparison.run() == 3
    printed, error = capsys.readouterr()
    assert error.startswith(f"error: {comparison.out / name}: cannot be written: larger than the limit on file sizes")
    assert "started  xy-seed0" not in printed
    assert error.count("\n") == 1
    assert comparison.run() == 0

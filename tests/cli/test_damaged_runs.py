"""Files of a run that are damaged, or folders: one line, and nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from coordconv_apps.runs.config import write_config
from coordconv_apps.runs.summary import read_summary
from tests.cli.test_resume import EPOCHS, fit
from tests.helpers.refusals import refusal
from tests.helpers.runs import load


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "summary.json", "checkpoints/best.ckpt", ".last.ckpt.aside"]
)
def test_folder_in_the_place_of_a_file_is_refused_and_the_run_resumes_without_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=1")
    path = run / "checkpoints" / name if name.startswith(".") else run / name
    path.unlink(missing_ok=True)
    path.mkdir()
    before = load(run)["run"]["steps"]
    assert f"{path}" in refusal(capsys, fit, tmp_path, "--ckpt_path=last", "--model.dropout=0")
    shutil.rmtree(path)
    assert load(run)["run"]["steps"] >= before
    fit(tmp_path, "--ckpt_path=last")
    assert read_summary(run)["epochs"] == EPOCHS


def test_a_damaged_config_file_of_a_run_is_kept_aside(tmp_path: Path) -> None:
    run = fit(tmp_path, "--trainer.max_epochs=1")
    (run / "config.yaml").write_bytes(bytes(100))
    fit(tmp_path, "--ckpt_path=last")
    assert (run / "config_until_epoch_1.yaml").read_bytes() == bytes(100)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == EPOCHS


def test_every_config_of_a_run_is_kept(tmp_path: Path) -> None:
    for lr in (1, 2, 3):  # resumed twice after the same epoch
        write_config(tmp_path, {"lr": lr}, 4)
    files = {file.name: yaml.safe_load(file.read_text())["lr"] for file in tmp_path.iterdir()}
    assert files == {"config_until_epoch_4.yaml": 1, "config_until_epoch_4_2.yaml": 2, "config.yaml": 3}

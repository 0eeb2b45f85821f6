"""Progress in the terminal."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from coordconv_apps.cli import run_cli
from coordconv_apps.training.progress import PlainProgress
from tests.toy.__main__ import main


def test_plain_progress_breaks_a_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_cli, "PlainProgress", partial(PlainProgress, seconds=-1))
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    out = capsys.readouterr().out
    assert "epoch 1/1 batch 5/5" in out
    assert "validating batch 3/3" in out
    main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "testing batch 3/3" in capsys.readouterr().out
    main(["predict", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "predicting batch 3/3" in capsys.readouterr().out


def test_plain_progress_does_not_repeat_a_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "] epoch" in line]
    assert ["val/distance" in line for line in lines] == [False, True, False]
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.max_epochs=5"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "] epoch" in line]
    assert ["val/distance" in line for line in lines] == [True, False]


def test_the_bar_counts_from_1_and_shows_the_latest_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=2"])
    bar = capsys.readouterr().out.partition("fit finished")[0].replace("\r", "\n").splitlines()
    assert [line[:9] for line in bar if "5/5" in line and "val/distance=" in line][-1] == "epoch 2/2"
    assert not any("Epoch" in line or "epoch 0" in line for line in bar)
    first = next(line for line in bar if line.startswith("epoch 2/2") and "1/5" in line)
    assert "val/distance=0.8" in first  # of the first epoch

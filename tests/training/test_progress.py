"""Pictures, progress and logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordconv_apps.training.progress import PlainProgress
from tests.toy.__main__ import main


def test_plain_progress_breaks_a_long_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PlainProgress, "_print_after_interval", _always)
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    out = capsys.readouterr().out
    assert "epoch 1/1 batch 5/5" in out
    assert "validating batch 3/3" in out
    main(["test", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "testing batch 3/3" in capsys.readouterr().out
    main(["predict", f"--runs_dir={tmp_path}", "--ckpt_path=best"])
    assert "predicting batch 3/3" in capsys.readouterr().out


_patient = PlainProgress._print_after_interval


def _always(progress: PlainProgress, stage: str, batch: int, batches: float) -> None:
    progress.seconds = -1
    _patient(progress, stage, batch, batches)


def test_plain_progress_is_silent_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress(seconds=1000)
    progress._print_after_interval("training", 1, 2)
    progress.disable()
    progress._print("anything")
    assert capsys.readouterr().out == ""

"""A short training on the simulated CUDA device. ``make test-simcuda`` runs everything else there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordconv_apps.runs.summary import read_summary
from tests.helpers.processes import ROOT
from tests.simcuda.build import environment, missing

TINY = [
    "--model=CoordinateRegression",
    "--model.coords=xy",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=4",
]
TINY += [f"--{part}.{size}" for part in ("model", "data") for size in ("canvas_size=12", "square_size=3")]


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_training_on_the_simulated_device(tmp_path: Path) -> None:
    variables = environment(os.environ, OMP_NUM_THREADS="1", SIM_CUDA_POISON="1", SIM_CUDA_RACES="abort")
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    arguments = ["fit", f"--runs_dir={tmp_path}", "--trainer.accelerator=gpu", "--trainer.devices=1", *TINY]
    command = [sys.executable, "-m", "coordconv_apps.coordinates", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (run,) = tmp_path.glob("coordinates/default/version_0")
    assert read_summary(run)["device"] == "cuda: Simulated GPU x1"

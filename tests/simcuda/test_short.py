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

TINY = ["--model=CoordinateRegression", "--model.coords=xy"]
TINY += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4"]
TINY += [f"--{part}.{size}" for part in ("model", "data") for size in ("canvas_size=12", "square_size=3")]


def train(runs: Path, devices: int) -> None:
    """Train on simulated devices, by one command."""
    settings = {"SIM_CUDA_DEVICES": str(devices), "SIM_CUDA_POISON": "1", "SIM_CUDA_RACES": "abort"}
    variables = environment(os.environ, OMP_NUM_THREADS="1", **settings)
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    arguments = ["fit", f"--runs_dir={runs}", "--trainer.accelerator=gpu", f"--trainer.devices={devices}", *TINY]
    command = [sys.executable, "-m", "coordconv_apps.coordinates", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (run,) = runs.glob("coordinates/default/version_0")
    assert read_summary(run)["device"] == f"cuda: Simulated GPU x{devices}"


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_training_runs_on_the_simulated_device(tmp_path: Path) -> None:
    train(tmp_path, devices=1)

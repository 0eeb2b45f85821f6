"""A long training takes no more of the machine at its end than after its warm-up."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from tests.helpers.processes import run_module
from tests.reliability.applications import CPU, flags

STEPS = 2000
LIMIT = 24.0
"""Growth of the resident memory in MiB that counts as none: freed memory is not returned to the system at once."""

VALIDATED = " trainer.check_val_every_n_epoch=1 generative_pictures.every_n_epochs=1"
"""Validations and pictures from the warm-up on: the first ones load what the later ones use again."""

# The config of each quick start, and what makes it shorter. Lightning counts the steps of both networks of the GAN.
QUICK_STARTS = {
    "detection": ("detection", "quickstart", f"trainer.max_steps={STEPS} data.num_val=40 data.batch_size=4"),
    "classification": ("classification", "quickstart", f"trainer.max_steps={STEPS} data.batch_size=4"),
    "gan": (
        "generative",
        "quickstart_dcgan",
        f"trainer.max_steps={2 * STEPS} data.num_train=5000 data.num_val=100{VALIDATED}",
    ),
    "vae": (
        "generative",
        "quickstart_vae",
        f"trainer.max_steps={STEPS} data.num_train=5000 data.num_val=100{VALIDATED}",
    ),
    "coordinates": (
        "coordconv_apps.coordinates",
        "classification_quadrant",
        f"trainer.max_steps={STEPS} model.stop_when_perfect=false trainer.check_val_every_n_epoch=4",
    ),
    # A training step collects a rollout and makes 12 updates; here it is a short one.
    "rl": (
        "rl",
        "quickstart",
        f"model.total_timesteps={STEPS * 64} model.n_steps=4 model.batch_size=64 model.n_epochs=1",
    ),
}


def rows(path: Path) -> list[tuple[float, ...]]:
    with path.open(newline="") as file:
        return [tuple(map(float, row)) for row in csv.reader(file)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", QUICK_STARTS)
def test_a_long_training_does_not_grow(tmp_path: Path, name: str) -> None:
    module, config, settings = QUICK_STARTS[name]
    path = tmp_path / "footprint.csv"
    callback = f"trainer.callbacks=tests.reliability.footprint.Footprint trainer.callbacks.path={path}"
    command = ["fit", f"--config={config}", f"--runs_dir={tmp_path}", "--model.coords=xy", *CPU]
    command += ["--trainer.log_every_n_steps=50", *flags(f"trainer.max_epochs=-1 {callback} {settings}")]
    done = run_module(module, *command, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = rows(path)
    assert found[-1][0] == STEPS
    # The second quarter against the last: the first one is the warm-up.
    quarter = len(found) // 4
    before, after = found[quarter : 2 * quarter], found[3 * quarter :]
    resident = [statistics.median(row[1] for row in part) for part in (before, after)]
    files, threads = ([max(row[column] for row in part) for part in (before, after)] for column in (2, 3))
    print(f"{name}: {resident[0]:.0f} to {resident[1]:.0f} MiB, {files} files, {threads} threads")
    assert resident[1] - resident[0] < LIMIT
    assert files[1] <= files[0]
    assert threads[1] <= threads[0]

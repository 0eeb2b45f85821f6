"""A long training takes no more of the machine at its end than after its warm-up."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from tests.helpers.processes import run_module
from tests.reliability.applications import CPU, flags

STEPS = 2000
LIMIT = 12.0
"""Growth of the resident memory in MiB that counts as none. A leak of 20 KiB in each step makes 20 MiB."""

VALIDATED = " trainer.check_val_every_n_epoch=1 generative_pictures.every_n_epochs=1"
"""Validations and pictures from the warm-up on: the first ones load what the later ones use again."""

# The config of each quick start, and what makes it shorter. Lightning counts the steps of both networks of the GAN.
QUICK_STARTS = {
    "detection": (
        "detection",
        "quickstart",
        f"trainer.max_steps={STEPS} data.num_train=800 data.num_val=40 data.batch_size=4"
        " trainer.check_val_every_n_epoch=1 detection_pictures.every_n_epochs=1",
    ),
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


def measure(folder: Path, module: str, settings: list[str], callback: str = "Footprint") -> list[list[float]]:
    """Train, and return the resident memory, files and threads in the second and the last quarter of the steps.

    The first quarter is the warm-up.
    """
    path = folder / "footprint.csv"
    recorded = f"trainer.callbacks=tests.reliability.footprint.{callback} trainer.callbacks.path={path}"
    command = ["fit", f"--runs_dir={folder}", *CPU, "--trainer.log_every_n_steps=50", *flags(recorded), *settings]
    done = run_module(module, *command, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = rows(path)
    assert found[-1][0] == STEPS
    quarter = len(found) // 4
    parts = found[quarter : 2 * quarter], found[3 * quarter :]
    resident = [statistics.median(row[1] for row in part) for part in parts]
    return [resident, *([max(row[column] for row in part) for part in parts] for column in (2, 3))]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", QUICK_STARTS)
def test_a_long_training_does_not_grow(tmp_path: Path, name: str) -> None:
    module, config, settings = QUICK_STARTS[name]
    command = [f"--config={config}", "--model.coords=xy", *flags(f"trainer.max_epochs=-1 {settings}")]
    resident, files, threads = measure(tmp_path, module, command)
    print(f"{name}: {resident[0]:.0f} to {resident[1]:.0f} MiB, {files} files, {threads} threads")
    assert resident[1] - resident[0] < LIMIT
    assert files[1] <= files[0]
    assert threads[1] <= threads[0]


@pytest.mark.slow
def test_a_leak_of_20_kib_in_each_step_is_found(tmp_path: Path) -> None:
    command = flags(f"trainer.max_epochs=-1 trainer.max_steps={STEPS} data.samples=4000")
    (before, after), *_ = measure(tmp_path, "tests.toy", command, "LeakingFootprint")
    assert after - before > LIMIT
    assert after - before == pytest.approx(STEPS / 2 * 20 / 1024, rel=0.2)

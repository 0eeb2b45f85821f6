"""SIGTERM and SIGINT in every phase, to one process, to two, and to the first of two: saved, ended, resumed exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from tests.helpers import forked
from tests.helpers.processes import ROOT, TWO_PROCESSES, pair_has_started, processes_with, wait_until
from tests.helpers.runs import assert_same, load
from tests.reliability.applications import APPLICATIONS, CPU, TOY, Application, flags
from tests.reliability.phases import Phase
from tests.reliability.test_kills import assert_same_schedule, assert_same_training, finish, newest

Target = Literal["one", "group", "first"]

LIMIT = 30.0
"""Seconds in which a command ends after a signal."""

PAIR = Application("tests.toy", [*TOY.settings, *flags("data.samples=29 data.val_samples=11 data.batch_size=4")])


def phases(folder: Path, phase: Phase) -> list[str]:
    """Return the flags that make a command tell about its phases."""
    return flags(f"trainer.callbacks=tests.reliability.phases.Phases trainer.callbacks.folder={folder}") + flags(
        f"trainer.callbacks.slow={phase}"
    )


def stop_two(runs: Path, command: list[str], phase: Phase, signum: int, target: Target) -> tuple[int, float]:
    """Send a signal to two processes in a phase; return their exit status and the seconds that they took to end."""
    marker = f"--runs_dir={runs}"
    with (runs / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", PAIR.module, command[0], marker, *command[1:], *TWO_PROCESSES, *phases(runs, phase)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    wait_until(partial(pair_has_started, runs) if phase == "start" else (runs / phase).exists)
    sent = time.monotonic()
    os.kill(-process.pid if target == "group" else process.pid, signum)
    try:
        status = process.wait(120)
        while list(processes_with(marker)) and time.monotonic() < sent + 120:
            time.sleep(0.1)
        return status, time.monotonic() - sent
    finally:
        for left in processes_with(marker):
            os.kill(left, signal.SIGKILL)


def stop_one(application: Application, runs: Path, phase: Phase, signum: int, *args: str) -> tuple[int | None, float]:
    """Send a signal to a training in one process; return its exit status and the seconds that it took to end."""
    command = ["fit", f"--runs_dir={runs}", "--name=run", *application.settings, *CPU, *args, *phases(runs, phase)]
    process = forked.start(application.module, *command, log=runs / "log.txt")
    wait_until((runs / phase).exists)
    sent = time.monotonic()
    os.kill(process.pid or 0, signum)
    (status,) = forked.finish(process, timeout=120)
    return status, time.monotonic() - sent


def log(runs: Path) -> str:
    return (runs / "log.txt").read_text()[-3000:]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an uninterrupted training in two processes."""
    runs = tmp_path_factory.mktemp("pair")
    command = ["fit", f"--runs_dir={runs}", "--name=run", *PAIR.settings, *CPU, *TWO_PROCESSES]
    forked.run(PAIR.module, *command, log=runs / "log.txt", processes=2)
    run = newest(runs)
    assert run is not None
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["group", "first"])
@pytest.mark.parametrize("phase", ["start", "train", "val", "save"])
def test_two_processes_stop_in_every_phase(tmp_path: Path, pair: Path, phase: Phase, target: Target) -> None:
    signum = signal.SIGINT if target == "first" and phase in ("train", "save") else signal.SIGTERM
    command = ["fit", "--name=run", *PAIR.settings, *CPU]
    status, seconds = stop_two(tmp_path, command, phase, signum, target)
    print(f"{signum.name} to the {target} in {phase}: status {status} after {seconds:.1f} s")
    assert status == 128 + signum, log(tmp_path)
    assert "Traceback" not in log(tmp_path)
    assert seconds < LIMIT, log(tmp_path)
    if phase == "start":  # nothing is saved yet
        return
    resumed = ["fit", f"--runs_dir={tmp_path}", "--name=run", *PAIR.settings, *CPU, *TWO_PROCESSES]
    resumed += ["--ckpt_path=last", "--trainer.callbacks=null"]
    forked.run(PAIR.module, *resumed, log=tmp_path / "log.txt", processes=2)
    run = newest(tmp_path)
    assert run is not None
    assert_same_training(run, pair, PAIR)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["group", "first"])
def test_two_processes_stop_in_a_test(tmp_path: Path, pair: Path, target: Target) -> None:
    checkpoint = pair / "checkpoints" / "last.ckpt"
    status, seconds = stop_two(tmp_path, ["test", f"--ckpt_path={checkpoint}"], "test", signal.SIGTERM, target)
    assert status == 143, log(tmp_path)
    assert seconds < LIMIT, log(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[str, Path]:
    """An application's name, and the run of its uninterrupted training."""
    name: str = request.param
    runs = tmp_path_factory.mktemp(name)
    return name, finish(APPLICATIONS[name], runs)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["train", "val", "save"])
@pytest.mark.parametrize("whole", APPLICATIONS, indirect=True)
def test_every_application_stops_in_every_phase(tmp_path: Path, whole: tuple[str, Path], phase: Phase) -> None:
    name, uninterrupted = whole
    application = APPLICATIONS[name]
    status, seconds = stop_one(application, tmp_path, phase, signal.SIGTERM)
    print(f"{name} in {phase}: status {status} after {seconds:.1f} s")
    assert status == 143, log(tmp_path)
    assert seconds < LIMIT, log(tmp_path)
    # A class that a checkpoint names is imported only if the command line names it, too.
    resumed = application._replace(settings=[*application.settings, *phases(tmp_path, "start")])
    run = finish(resumed, tmp_path)
    if name == "rl":
        assert_same_schedule(run, uninterrupted)
    else:
        assert_same_training(run, uninterrupted, application)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "val", "save"])
def test_a_training_under_limits_stops(tmp_path: Path, phase: Phase) -> None:
    limited = Application(TOY.module, [*TOY.settings, *flags("trainer.max_steps=23 trainer.max_time=00:01:00:00")])
    runs = [tmp_path / name for name in ("whole", "stopped")]
    for folder in runs:
        folder.mkdir()
    whole = finish(limited, runs[0])
    status, _ = stop_one(limited, runs[1], phase, signal.SIGTERM)
    assert status == 143, log(runs[1])
    again = Application(limited.module, [*limited.settings, "--trainer.callbacks=null"])
    assert_same_training(finish(again, runs[1]), whole, limited)


@pytest.mark.slow
def test_a_training_that_a_time_limit_ends_is_resumed(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("whole", "timed")]
    for folder in runs:
        folder.mkdir()
    whole = finish(TOY, runs[0])
    limit = [*TOY.settings, "--trainer.max_time=00:00:00:02", *phases(runs[1], "train")]
    finish(Application(TOY.module, limit), runs[1])
    stopped = newest(runs[1])
    assert stopped is not None
    assert 5 < load(stopped)["global_step"] < 100
    finish(Application(TOY.module, [*TOY.settings, *flags("trainer.max_time=null trainer.callbacks=null")]), runs[1])
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "coordconv_apps", "global_step"):
        assert_same(load(stopped)[key], load(whole)[key], key)

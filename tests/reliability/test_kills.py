"""A training that is killed at random moments, resumed and killed again ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from coordconv_apps.runs.summary import read_summary
from tests.helpers import forked
from tests.helpers.runs import assert_same, load, rows, state
from tests.reliability.applications import APPLICATIONS, CPU, TOY, Application


def newest(runs: Path) -> Path | None:
    """Return the run folder that was made last."""
    return max(runs.glob("*/*/version_*"), key=lambda run: int(run.name.removeprefix("version_")), default=None)


def last_checkpoint(runs: Path) -> Path | None:
    run = newest(runs)
    path = None if run is None else run / "checkpoints" / "last.ckpt"
    return path if path is not None and path.is_file() else None


def fit(application: Application, runs: Path) -> ForkServerProcess:
    """Start a training, or resume the one that is there."""
    more = ["--ckpt_path=last"] if last_checkpoint(runs) else []
    command = ["fit", f"--runs_dir={runs}", "--name=run", *application.settings, *CPU, *more]
    return forked.start(application.module, *command, log=runs / "log.txt")


def finish(application: Application, runs: Path) -> Path:
    (status,) = forked.finish(fit(application, runs))
    assert status == 0, (runs / "log.txt").read_text()[-3000:]
    run = newest(runs)
    assert run is not None
    return run


def killed_and_resumed(application: Application, runs: Path, seconds: float, rng: random.Random, kills: int) -> int:
    """Kill a training up to ``kills`` times, each early in the ``seconds`` that it takes, and let it finish.

    Returns:
        The number of kills. It is smaller if the training finished before.
    """
    for number in range(kills):
        process = fit(application, runs)
        process.join(rng.uniform(0, 0.7 * seconds))
        if not process.is_alive():
            assert process.exitcode == 0, (runs / "log.txt").read_text()[-3000:]
            return number
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if last_checkpoint(runs):
            load(newest(runs) or runs)  # never half written
    finish(application, runs)
    return kills


def kept_rows(run: Path, application: Application) -> list[dict[str, str]]:
    """Read ``metrics.csv`` without the columns that hold times."""
    return [{name: value for name, value in row.items() if name not in application.times} for row in rows(run)]


def assert_same_training(run: Path, whole: Path, application: Application) -> None:
    """Assert that a run is equal to an uninterrupted one bit for bit, and that nothing else is left in its folder."""
    for name in ("last", "best"):
        one, other = state(run, name), state(whole, name)
        for key in ("metrics", "best"):
            del one[key], other[key]
        assert_same(one, other, name)
    assert kept_rows(run, application) == kept_rows(whole, application)
    assert_complete(run)


def assert_complete(run: Path) -> None:
    """Assert that a run says that it has finished, and that no file of a killed process is left."""
    assert read_summary(run)["status"] == "finished"
    assert [path.name for path in run.rglob(".*")] == []


def assert_same_schedule(run: Path, whole: Path) -> None:
    """Assert what is promised of rl: all steps are made once, the schedule goes on, games are new."""
    one, other = load(run), load(whole)
    for key in ("timesteps", "rollouts"):
        assert one["rl"][key] == other["rl"][key]
    assert one["global_step"] == other["global_step"]
    groups = [checkpoint["optimizer_states"][0]["param_groups"] for checkpoint in (one, other)]
    assert_same(*groups)
    steps = [int(row["step"]) for row in rows(run)]
    assert steps == sorted(steps)
    assert steps == [int(row["step"]) for row in rows(whole)]
    assert_complete(run)


def check_kills(application: Application, folder: Path, kills: int, chain: int, seed: int) -> None:
    """Kill trainings ``kills`` times in all, ``chain`` times each, and compare each with an uninterrupted one."""
    runs = folder / "whole"
    runs.mkdir()
    finish(application, runs)  # the first process of a kind also loads what is loaded late
    whole_runs = folder / "timed"
    whole_runs.mkdir()
    started = time.monotonic()
    whole = finish(application, whole_runs)
    seconds = time.monotonic() - started
    rng = random.Random(seed)
    done = trial = 0
    while done < kills:
        runs = folder / f"trial_{trial}"
        runs.mkdir()
        done += killed_and_resumed(application, runs, seconds, rng, min(chain, kills - done))
        trial += 1
        run = newest(runs)
        assert run is not None
        if application.module == "rl":
            assert_same_schedule(run, whole)
        else:
            assert_same_training(run, whole, application)
    print(f"{application.module}: {done} kills in {trial} trainings of {seconds:.1f} s")


def test_training_killed_three_times_resumes(tmp_path: Path) -> None:
    check_kills(TOY, tmp_path, kills=3, chain=3, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_training_killed_twenty_times_resumes(tmp_path: Path, name: str) -> None:
    check_kills(APPLICATIONS[name], tmp_path, kills=20, chain=5, seed=0)

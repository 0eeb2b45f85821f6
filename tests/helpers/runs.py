"""Trainings that are interrupted and resumed, and comparisons of runs."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from coordconv_apps.runs.summary import read_summary


@contextmanager
def interrupted_at(task: type[Any], number: int) -> Iterator[None]:
    """Send SIGTERM to a training in its training step ``number``; assert that it then ends."""
    step, seen = task.training_step, 0

    def training_step(*args: Any) -> Any:  # noqa: ANN401  # handed on as they are
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    with mock.patch.object(task, "training_step", training_step), pytest.raises(SystemExit) as stopped:
        yield
    assert stopped.value.code == 143
    assert seen == number, "a test of nothing else"


def load(run: Path, name: str = "last") -> dict[str, Any]:
    """Load a checkpoint of a run."""
    checkpoint: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return checkpoint


def state(run: Path, name: str) -> dict[str, Any]:
    """Return all that training depends on, and what is reported of it."""
    checkpoint = load(run, name)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "coordconv_apps", "global_step")
    reported = {key: checkpoint["run"][key] for key in ("metrics", "best", "log_step", "epochs")}
    return {**{key: checkpoint[key] for key in kept}, **reported}


def assert_same(one: Any, other: Any, where: str = "") -> None:  # noqa: ANN401  # anything in a checkpoint
    """Assert that two parts of checkpoints are equal, bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{i}")
    else:
        assert one == other, where


def metrics_of(run: Path) -> dict[str, float]:
    """Return the metrics in a command's summary."""
    metrics: dict[str, float] = read_summary(run)["metrics"]
    return metrics


def rows(folder: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    """Read the rows of a table of a command."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same_runs(one: Path, other: Path) -> None:
    """Assert that two runs have the same checkpoints, metrics and summaries, bit for bit."""
    for name in ("last", "best"):
        assert_same(state(one, name), state(other, name), name)
    assert rows(one) == rows(other)
    told_one, told_other = read_summary(one), read_summary(other)
    for key in ("metrics", "epochs", "steps", "status", "parameters"):
        assert told_one[key] == told_other[key], key


def last_command(name_dir: Path) -> Path:
    """Return the folder of the last command of a run's name: a training, or an evaluation below one."""
    return max(name_dir.rglob("summary.json"), key=lambda path: path.stat().st_mtime_ns).parent

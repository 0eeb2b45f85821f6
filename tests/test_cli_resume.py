"""An interrupted and resumed training equals an uninterrupted one to the bit, wherever it was interrupted."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from coordconv_apps.runs import read_summary
from tests.toy.__main__ import main

EPOCHS = 3
BATCHES = 5  # of 8 samples, in an epoch
VAL_BATCHES = 3


def fit(runs: Path, *args: str) -> Path:
    main(["fit", f"--runs_dir={runs}", f"--trainer.max_epochs={EPOCHS}", "--trainer.log_every_n_steps=1", *args])
    return runs / "toy" / "default" / "version_0"


def interrupted_fit(runs: Path, trouble: str, *args: str) -> Path:
    with pytest.raises(SystemExit) as stopped:
        fit(runs, f"--model.trouble={trouble}", *args)
    assert stopped.value.code == (130 if "SIGINT" in trouble else 143)
    return runs / "toy" / "default" / "version_0"


def state(run: Path, name: str = "last") -> dict[str, Any]:
    """What training depends on."""
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {
        "state_dict": checkpoint["state_dict"],
        "optimizer_states": checkpoint["optimizer_states"],
        "lr_schedulers": checkpoint["lr_schedulers"],
        "own": checkpoint["coordconv_apps"],
        "global_step": checkpoint["global_step"],
        "metrics": checkpoint["run"]["metrics"],
        "best": checkpoint["run"]["best"],
        "log_step": checkpoint["run"]["log_step"],
        "epochs": checkpoint["run"]["epochs"],
    }


def assert_same(one: Any, other: Any, where: str = "") -> None:  # noqa: ANN401  # anything in a checkpoint
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


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_runs(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        assert_same(state(one, name), state(other, name), name)
    assert rows(one) == rows(other)
    a, b = read_summary(one), read_summary(other)
    for key in ("metrics", "epochs", "steps", "status", "parameters"):
        assert a[key] == b[key], key


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("trouble", [f"SIGINT@train{i}" for i in range(1, EPOCHS * BATCHES + 1)])
def test_interrupted_in_any_batch(tmp_path: Path, uninterrupted: Path, trouble: str) -> None:
    if trouble == f"SIGINT@train{EPOCHS * BATCHES}":  # stopped in the validation that follows
        run = interrupted_fit(tmp_path, trouble)
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["run"]["place"] == "validation"
    run = interrupted_fit(tmp_path, trouble) if not (tmp_path / "toy").exists() else run
    assert read_summary(run)["status"] == "interrupted"
    assert fit(tmp_path, "--ckpt_path=last", "--model.trouble=null") == run
    assert_same_runs(run, uninterrupted)

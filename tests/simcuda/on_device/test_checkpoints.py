"""Checkpoints of a GPU: resumed and tested on a machine without one, and the reverse; resumed with other settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coordconv_apps.runs.summary import read_summary
from tests.helpers.processes import ROOT
from tests.helpers.runs import last_command, load
from tests.simcuda.on_device.commands import CASES

MOVED = ("classification", "coordinate-regression", "ppo")
"""SGD with an average of the weights, Adam, and an optimizer of Stable-Baselines3."""


def run(name: str, runs: Path, command: str, *arguments: str) -> Path:
    """Run a command of a case; return its folder."""
    CASES[name].main([command, f"--runs_dir={runs}", f"--name={name}", *arguments])
    return last_command(next(runs.glob(f"*/{name}")))


def metrics_of(folder: Path) -> dict[str, float]:
    """Return the metrics of a command, but for those of time."""
    metrics: dict[str, float] = dict(read_summary(folder)["metrics"])
    return {name: value for name, value in metrics.items() if not name.startswith("time/") and "seconds" not in name}


def on_a_machine_without_gpu(*calls: list[Any]) -> None:
    """Call `run` with lists of arguments, in one process that has no device."""
    simulation = ("SIM_CUDA", "LD_PRELOAD", "PYTHONPATH")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(simulation)}
    code = (
        "import json, pathlib, sys, torch; assert not torch.cuda.is_available();"
        "from tests.simcuda.on_device.test_checkpoints import run;"
        "[run(name, pathlib.Path(runs), *rest) for name, runs, *rest in json.loads(sys.argv[1])]"
    )
    command = [sys.executable, "-c", code, json.dumps(calls)]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=900)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]


def test_checkpoints_move_between_devices(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    on_gpu, on_cpu = "--trainer.accelerator=gpu", "--trainer.accelerator=cpu"
    tested = {}
    for name in MOVED:
        fit = run(name, gpu, "fit", *CASES[name].fit, on_gpu, "--trainer.devices=1")
        assert load(fit)["state_dict"], "opens without the GPU's help"
        tested[name] = metrics_of(run(name, gpu, "test", "--ckpt_path=last", on_gpu, "--trainer.devices=1"))
    calls: list[list[Any]] = []
    for name in MOVED:
        last, longer = ["--ckpt_path=last", on_cpu], CASES[name].longer
        calls += [[name, str(gpu), "test", *last], [name, str(gpu), "fit", *last, longer]]
        calls += [[name, str(cpu), "fit", *CASES[name].fit, on_cpu], [name, str(cpu), "test", *last]]
    on_a_machine_without_gpu(*calls)
    for name in MOVED:
        (trained,) = gpu.glob(f"*/{name}/version_0")
        assert metrics_of(trained / "test_1") == pytest.approx(tested[name], rel=1e-3, abs=1e-4), name
        assert read_summary(trained)["device"].startswith("cpu"), "resumed there"
        there = metrics_of(last_command(next(cpu.glob(f"*/{name}"))))
        here = metrics_of(run(name, cpu, "test", "--ckpt_path=last", on_gpu, "--trainer.devices=1"))
        assert here == pytest.approx(there, rel=1e-3, abs=1e-4), name
        resumed = run(name, cpu, "fit", "--ckpt_path=last", on_gpu, "--trainer.devices=1", CASES[name].longer)
        assert read_summary(resumed)["device"].startswith("cuda")
        assert load(resumed)["global_step"] == load(trained)["global_step"], name


@pytest.mark.parametrize("resumed_clip", ["null", "1e9"])
def test_a_training_is_resumed_with_and_without_clipping(tmp_path: Path, resumed_clip: str) -> None:
    """Adam is fused only if no gradients are clipped, and fused Adam needs its step counters on the GPU."""
    name = "coordinate-regression"
    fit = [*CASES[name].fit, "--trainer.accelerator=gpu", "--trainer.devices=1"]
    first_clip = "1e9" if resumed_clip == "null" else "null"
    whole = load(run(name, tmp_path / "whole", "fit", *fit, CASES[name].longer))
    run(name, tmp_path / "resumed", "fit", *fit, f"--trainer.gradient_clip_val={first_clip}")
    longer = ["--ckpt_path=last", CASES[name].longer, f"--trainer.gradient_clip_val={resumed_clip}"]
    resumed = load(run(name, tmp_path / "resumed", "fit", *longer))
    (state,) = resumed["optimizer_states"]
    assert {group["fused"] for group in state["param_groups"]} == {resumed_clip == "null"}
    assert {each["step"].item() for each in state["state"].values()} == {whole["global_step"]}
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=1e-3, atol=1e-5)

"""Every command of every application on a simulated device, in three precisions; with two devices as well."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.processes import run_pair
from tests.simcuda.build import environment
from tests.simcuda.on_device.commands import CASES, COMMANDS, PRECISIONS, run_commands
from tests.simcuda.test_short import train


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_every_command(tmp_path: Path, name: str, precision: str) -> None:
    if precision not in CASES[name].precisions:
        pytest.skip(f"{name} trains in {', '.join(CASES[name].precisions)} only")
    run_commands(name, tmp_path, precision)


def free_ports(number: int) -> list[str]:
    """Return ports that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_command_on_two_devices(tmp_path: Path, precision: str) -> None:
    ports = ",".join(free_ports(len(CASES) * len(COMMANDS)))
    variables = environment(os.environ, SIM_CUDA_DEVICES="2", SIM_CUDA_RACES="abort", PORTS=ports)
    variables["CUDA_VISIBLE_DEVICES"] = "0,1"
    command = ["-m", "tests.simcuda.on_device.commands", str(tmp_path), precision]
    for rank, process in enumerate(run_pair(command, variables, timeout=1100)):
        assert process.returncode == 0, f"rank {rank}:\n{process.stdout[-3000:]}\n{process.stderr[-6000:]}"


def test_one_command_starts_a_process_for_each_device(tmp_path: Path) -> None:
    train(tmp_path, devices=2)

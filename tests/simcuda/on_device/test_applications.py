"""Every command of every application on simulated devices.

Each task trains in three precisions, one of them on two devices: pairs of task, precision and number of devices, rather
than all combinations.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.processes import run_pair
from tests.simcuda.build import environment
from tests.simcuda.on_device.commands import CASES, COMMANDS, run_commands
from tests.simcuda.test_short import train

ALONE = [(name, precision) for name, case in CASES.items() for precision in case.alone]
PAIRS = [(name, case.pair) for name, case in CASES.items() if case.pair is not None]


@pytest.mark.parametrize(("name", "precision"), ALONE)
def test_every_command_runs(tmp_path: Path, name: str, precision: str) -> None:
    run_commands(name, tmp_path, precision)


def free_ports(number: int) -> list[str]:
    """Return ports that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_every_command_runs_on_two_devices(tmp_path: Path, name: str, precision: str) -> None:
    variables = environment(os.environ, SIM_CUDA_DEVICES="2", SIM_CUDA_RACES="abort")
    variables |= {"PORTS": ",".join(free_ports(len(COMMANDS))), "CUDA_VISIBLE_DEVICES": "0,1"}
    command = ["-m", "tests.simcuda.on_device.commands", str(tmp_path), name, precision]
    for rank, process in enumerate(run_pair(command, variables, timeout=550)):
        assert process.returncode == 0, f"rank {rank}:\n{process.stdout[-3000:]}\n{process.stderr[-6000:]}"


def test_one_command_starts_a_process_for_each_device(tmp_path: Path) -> None:
    train(tmp_path, devices=2)

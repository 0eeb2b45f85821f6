"""Real processes: two of them training together, and signals from outside."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Trainer

from coordconv_apps.cli import app, launch
from coordconv_apps.cli.command_record import CommandRecord
from coordconv_apps.cli.launch import end_processes, hold_signals_until_connected
from coordconv_apps.cli.run_cli import share_run_dir
from coordconv_apps.runs.folder import run_dir
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.signals import Interrupted, Interrupts
from coordconv_apps.utils.errors import UserError
from tests.helpers import forked
from tests.helpers.processes import (
    ROOT,
    TWO_PROCESSES,
    free_port,
    pair_has_started,
    processes_with,
    run_module,
    wait_until,
)
from tests.helpers.runs import assert_same_runs, last_command, load, rows
from tests.toy.__main__ import main
from tests.toy.tasks import ToyTask

# Two samples are missing in the last step; the two processes have different numbers of samples to validate.
DATA = ["--data.samples=30", "--data.val_samples=11", "--data.batch_size=4"]


def toy(runs: Path, *args: str, processes: int = 1) -> tuple[int | None, str]:
    """Run a command of the toy application; return its status and standard error. It must leave no process behind.

    It starts its second process itself, unless ``processes`` are started, as torchrun does.
    """
    errors = runs / "errors.txt"
    errors.unlink(missing_ok=True)
    command = ["tests.toy", args[0], marker := f"--runs_dir={runs}", *args[1:]]
    status, *others = forked.run(*command, log=runs / "log.txt", errors=errors, processes=processes, check=False)
    assert list(processes_with(marker)) == []
    assert not any(others)
    return status, errors.read_text()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one training by two processes in it."""
    runs = tmp_path_factory.mktemp("pair")
    marker = f"--runs_dir={runs}"
    settings = ["--trainer.max_epochs=2", "--model.coords=xy", *DATA, *TWO_PROCESSES]
    done = run_module("tests.toy", "fit", marker, *settings)
    assert list(processes_with(marker)) == []
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("epoch 1/2 ") == done.stdout.count("fit finished") == 1
    return runs


def test_two_processes_share_a_folder(pair: Path) -> None:
    run = pair / "toy" / "default" / "version_0"
    summary = read_summary(run)
    assert summary["status"] == "finished"
    assert summary["world_size"] == 2
    assert summary["steps"] == 2 * 4  # 30 samples in steps of 2 * 4
    assert len(load(run)["coordconv_apps"]["ranks"]) == 2


def test_two_processes_validate_like_one(pair: Path) -> None:
    best = read_summary(pair / "toy" / "default" / "version_0")["best"]["value"]
    main(["validate", f"--runs_dir={pair}", "--ckpt_path=best", "--trainer.devices=1"])
    (alone,) = read_summary(last_command(pair / "toy" / "default"))["metrics"].values()
    assert best == pytest.approx(alone, rel=1e-6)
    status, error = toy(pair, "test", "--ckpt_path=best", *TWO_PROCESSES, processes=2)
    assert status == 0, error
    summary = read_summary(last_command(pair / "toy" / "default"))
    assert summary["metrics"] == {"test/distance": pytest.approx(alone, rel=1e-6)}
    assert summary["world_size"] == 2


def test_two_processes_are_interrupted_and_resume(pair: Path, tmp_path: Path) -> None:
    run = tmp_path / "toy" / "default" / "version_0"
    settings = ["--trainer.max_epochs=2", "--model.coords=xy", *DATA, *TWO_PROCESSES]
    status, error = toy(tmp_path, "fit", "--model.trouble=SIGINT@train2", *settings)
    assert status == 130, error
    assert load(run)["run"]["place"] == "batch"
    # They finish the validation; in the last epoch they would be through with the training then.
    status, error = toy(tmp_path, "fit", "--ckpt_path=last", "--model.trouble=SIGTERM@val2", processes=2)
    assert status == 143, error
    assert load(run)["run"]["place"] == "epoch"
    assert read_summary(run)["status"] == "interrupted"
    status, error = toy(tmp_path, "fit", "--ckpt_path=last", "--model.trouble=null", processes=2)
    assert status == 0, error
    assert_same_runs(run, pair / "toy" / "default" / "version_0")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_completes_the_means_of_an_epoch(tmp_path: Path, before: int, after: int) -> None:
    """``best.ckpt`` is saved at the end of an epoch, before the means over its steps are logged."""
    settings: dict[int, list[str]] = {
        1: ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--data.batch_size=8"],
        2: [*TWO_PROCESSES, "--data.batch_size=4"],
    }
    status, error = toy(tmp_path, "fit", "--trainer.max_epochs=1", *settings[before], processes=before)
    assert status == 0, error
    best = tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "best.ckpt"
    resumed = ["--name=resumed", f"--ckpt_path={best}", "--trainer.max_epochs=2", *settings[after]]
    status, error = toy(tmp_path, "fit", *resumed, processes=after)
    assert status == 0, error
    first, second = (
        [float(row["train/loss"]) for row in rows(tmp_path / "toy" / name / "version_0") if row["train/loss"]]
        for name in ("default", "resumed")
    )
    assert second[0] == pytest.approx(first[0], rel=1e-6)
    assert len(second) == 2


def test_error_of_two_processes_is_reported_once(tmp_path: Path) -> None:
    status, error = toy(tmp_path, "fit", "--data.val_samples=13", *TWO_PROCESSES)
    assert status == 2
    assert error == "error: data.val_samples=13: brings bad luck, any other number is allowed\n"


def launcher_of(started: list[subprocess.Popen[bytes]]) -> Any:  # noqa: ANN401  # as much of a trainer as counts
    """A trainer that has started processes."""
    return SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=started)))


def test_end_processes_does_not_kill_rank_0() -> None:
    first, second = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    started = [second]
    observer = _ChildProcessObserver(main_pid=first.pid, child_processes=started, sleep_period=cast("int", 0.5))
    observer.start()
    try:
        end_processes(launcher_of(started), failed=True)
        assert second.returncode == -signal.SIGTERM
        observer.join(30)
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(1)
    finally:
        first.kill()
        first.wait()


def test_end_processes_does_not_wait_for_collectives_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.destroy_process_group", partial(time.sleep, 60))  # as under NCCL
    second = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = time.monotonic()
    end_processes(launcher_of([second]), failed=True)
    assert second.returncode == -signal.SIGTERM
    assert time.monotonic() - began < 30


def test_end_processes_waits_for_a_rank_that_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.1)
    second = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])
    end_processes(launcher_of([second]), failed=False)
    assert second.returncode == 0


def test_signal_ends_the_wait_for_a_rank_that_still_runs() -> None:
    second = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    interrupts = Interrupts()
    interrupts.install()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        end_processes(launcher_of([second]), failed=False)
        assert second.returncode == -signal.SIGKILL
    finally:
        timer.join()
        interrupts.restore()


def test_a_process_ends_if_the_first_one_does_before_they_are_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = queue.SimpleQueue[int]()
    monkeypatch.setattr("os._exit", ended.put)
    with launch.ended_with(os.getppid()):
        time.sleep(0.7)
    assert ended.empty()
    monkeypatch.setattr("os.getppid", lambda: 1)  # as of a process whose parent has ended
    with launch.ended_with(12345):
        assert ended.get(timeout=10) == 1


def test_a_signal_while_processes_are_started_ends_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    started = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
    ended = queue.SimpleQueue[int]()
    monkeypatch.setattr("os._exit", ended.put)
    trainer, record, interrupts = launcher_of(list(started)), CommandRecord("toy", "tests.toy"), Interrupts()
    statuses: list[int] = []
    trainer.world_size = 2
    trainer.strategy.setup_environment = lambda: statuses.append(ended.get(timeout=30))  # never connects
    interrupts.install()
    try:
        hold_signals_until_connected(trainer, record, interrupts)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # as in other threads, such as those of OpenMP
        os.kill(os.getpid(), signal.SIGTERM)  # raises nothing here, where Lightning would start the next process
        with pytest.raises(Interrupted):
            trainer.strategy.setup_environment()
        assert statuses == [143]
        assert [process.wait(10) for process in started] == [-signal.SIGKILL] * 2
    finally:
        interrupts.restore()
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("end", [Interrupted(signal.SIGTERM), UserError("data: a mistake")])
def test_sigterm_to_the_second_process_while_it_ends_is_ignored(
    monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    def stop(*unused: object) -> NoReturn:
        raise end

    told: list[object] = []

    def finish(record: CommandRecord, status: str, reason: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        told.append(status)

    monkeypatch.setattr(app, "RunCLI", stop)
    monkeypatch.setattr(app, "is_first_here", lambda: False)
    monkeypatch.setattr(app, "end_processes", lambda *unused, **also_unused: None)
    monkeypatch.setattr(CommandRecord, "finish", finish)
    with nullcontext() if isinstance(end, Interrupted) else pytest.raises(SystemExit):
        main(["fit", "--trainer.max_epochs=1"])
    assert len(told) == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_all_processes_write_to_the_folder_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path / "version_3")
    monkeypatch.setattr(trainer.strategy, "broadcast", lambda found: str(Path(found).with_name("version_2")))
    share_run_dir(trainer, ToyTask(), "predict")
    assert run_dir(trainer) == tmp_path / "version_2"


def test_exception_on_rank_1_ends_both_processes(tmp_path: Path) -> None:
    status, error = toy(tmp_path, "fit", "--trainer.max_epochs=2", "--model.trouble=error-on-1@train2", *TWO_PROCESSES)
    assert status == 1
    assert "ValueError: a defect" in error
    assert read_summary(tmp_path / "toy" / "default" / "version_0")["status"] == "failed"


def test_a_mistake_that_only_the_second_process_finds_is_reported(tmp_path: Path) -> None:
    status, error = toy(
        tmp_path, "fit", "--trainer.max_epochs=2", "--model.trouble=mistake-on-1@train2", *TWO_PROCESSES
    )
    assert status == 1  # the first process only sees that the other one is gone
    assert error.count("error in process 1: an image that only this process reads\n") == 1


def started_toy(runs: Path, *args: str, until: str) -> tuple[ForkServerProcess, Path]:
    """Start a training of the toy application; return it and the file with its output once that contains a text."""
    log = runs / "log.txt"
    process = forked.start("tests.toy", "fit", f"--runs_dir={runs}", *args, log=log)
    wait_until(lambda: log.exists() and until in log.read_text())
    return process, log


def test_sigterm_saves_a_checkpoint_and_ends_with_status_143(tmp_path: Path) -> None:
    process, log = started_toy(tmp_path, "--trainer.max_epochs=100000", until="epoch 3/")
    os.kill(process.pid or 0, signal.SIGTERM)
    assert forked.finish(process, timeout=120) == [143]
    output = log.read_text()
    assert "stopping" in output
    assert "Traceback" not in output
    assert "fit interrupted" in output
    run = tmp_path / "toy" / "default" / "version_0"
    assert read_summary(run)["status"] == "interrupted"
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= 15


@pytest.mark.parametrize("moment", ["start", "training"])
def test_a_signal_to_all_processes_ends_them_in_time(tmp_path: Path, moment: str) -> None:
    marker = f"--runs_dir={tmp_path}"
    command = [sys.executable, "-m", "tests.toy", "fit", marker, "--trainer.max_epochs=100000", *DATA, *TWO_PROCESSES]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    if moment == "training":
        assert any("epoch 3/" in line for line in process.stdout)
    else:
        wait_until(partial(pair_has_started, tmp_path))
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(processes_with(marker)) == []
    saved = (tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "last.ckpt").is_file()
    assert saved == (moment == "training")


def test_a_process_that_torchrun_starts_is_not_one_of_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.LAUNCH_VARIABLE, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    launch.pass_to_launched({"run_dir": "runs", "ckpt_path": None, "pid": 1})
    assert launch.parent_launch() is None  # otherwise, signals would be blocked until it is connected


def test_a_signal_ends_the_wait_for_another_machine(tmp_path: Path) -> None:
    port, marker, machines = free_port(), f"--runs_dir={tmp_path}", ["--trainer.num_nodes=2", *TWO_PROCESSES]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.toy", "fit", marker, *machines],
        cwd=ROOT,
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"},
    )
    while process.poll() is None:  # until it listens
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 143
    assert list(processes_with(marker)) == []
    assert read_summary(tmp_path / "toy" / "default" / "version_0")["status"] == "interrupted"


@pytest.mark.parametrize("trouble", ["SIGUSR1@train2", "SIGTERM@train2"])
def test_a_signal_of_slurm_saves_a_checkpoint(tmp_path: Path, trouble: str) -> None:
    log, port = tmp_path / "log.txt", str(free_port())
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    job |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODELIST": "localhost", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = ["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=2", f"--model.trouble={trouble}", *TWO_PROCESSES]
    started = [
        forked.start(
            "tests.toy",
            *command,
            log=log,
            environment={**job, "SLURM_NODEID": "0", **dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID"), rank)},
        )
        for rank in ("0", "1")
    ]
    # The second process ends like one that torchrun started.
    assert forked.finish(*started) == [128 + signal.Signals[trouble.partition("@")[0]], 0]
    run = tmp_path / "toy" / "default" / "version_0"
    assert load(run)["run"]["place"] == "batch"
    assert list(run.glob("hpc_ckpt*")) == []  # Lightning's
    assert log.read_text().count("stopping once") == 1


def test_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    process, log = started_toy(tmp_path, "--model.trouble=sleep@train7", "--trainer.max_epochs=2", until="epoch 1/")
    pid = process.pid or 0
    time.sleep(1)
    os.kill(pid, signal.SIGINT)
    time.sleep(1)
    assert process.is_alive()
    os.kill(pid, signal.SIGINT)
    assert forked.finish(process, timeout=60) == [130]
    assert "Traceback" not in log.read_text()
    run = tmp_path / "toy" / "default" / "version_0"
    assert read_summary(run)["status"] == "interrupted"
    assert load(run)["global_step"] == 5  # the end of the first epoch

"""Signals, locks and the terminal: comparisons as processes of their own."""

import contextlib
import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from unittest import mock

import pytest

from coordconv_apps.compare.output_folder import lock_folder
from tests.compare.harness import ROOT, Comparison, flag
from tests.helpers.processes import wait_until


def start(comparison: Comparison, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "coordconv_apps.compare", *comparison.arguments(*args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def test_closed_output_ends_the_comparison(comparison: Comparison) -> None:
    process = start(comparison, "--arms", "none", "xy")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("2 runs of ")
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == "error: the output of this command: cannot be written: broken pipe\n"
    assert process.wait(timeout=60) == 3


def test_interruption_with_a_closed_output_prints_no_error(comparison: Comparison) -> None:
    process = start(comparison, "--model.delay=0.5", "--trainer.max_epochs=1")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout:
        assert [process.stdout.readline()[:7] for _ in range(2)] == ["2 runs ", "started"]
    process.send_signal(signal.SIGINT)  # as in `... | tee log`, where Ctrl-C ends both
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_comparison_resumes(
    comparison: Comparison, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model.delay=0.4", "--trainer.max_epochs=5"]
    more = ["--seeds", "0", "1"]
    last = comparison.out / "runs" / "fakeapp" / "xy-seed0" / "version_0" / "checkpoints" / "last.ckpt"
    process = start(comparison, *more, *args)
    wait_until(lambda: last.is_file() and last.read_text() == "2")
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "stopping xy-seed0" in printed
    assert "started  none-seed1" not in printed
    assert printed.rstrip().endswith("interrupted: 1 of 4 runs finished; the same command resumes them")
    assert comparison.stages() == ["fit none-seed0", "test none-seed0", "fit xy-seed0"]
    assert not (comparison.out / "comparison.md").exists()

    reached = int(last.read_text())
    assert comparison.run(*args) == 0
    assert comparison.stages()[3:] == ["fit xy-seed0", "test xy-seed0"]
    assert flag(comparison.calls()[3], "--ckpt_path") == str(last)
    assert "1 finished before" in capsys.readouterr().out
    assert comparison.rows()[1]["epochs"] == str(5 - reached)  # the fake counts those of its last call
    assert (last.parent.parent / "metrics.csv").read_text().count("\n") == 2 + 5


def test_second_signal_does_not_wait(comparison: Comparison) -> None:
    process = start(comparison, "--model.delay=60", "--model.stubborn")
    wait_until((comparison.out / "runs" / "fakeapp" / "none-seed0" / "version_0" / "config.yaml").is_file)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    while "stopping none-seed0" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    with lock_folder(comparison.out):  # nothing is left that holds it
        pass


def test_a_terminal_gets_a_progress_bar(comparison: Comparison) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "coordconv_apps.compare", *comparison.arguments("--arms", "xy", "--model.delay=1")]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way of saying that the other end is closed
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "/1 runs [" in text
    assert ", xy-seed0: epoch " in text
    assert "finished xy-seed0" in text
    assert "| test/iou   |   0.6 |" in text


def test_a_folder_serves_one_comparison_at_a_time(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    log = comparison.out / "logs" / "none-seed0.log"
    process = start(comparison, "--model.delay=30")
    wait_until(log.is_file)
    assert comparison.run("--model.delay=30") == 2
    assert "in use by another comparison" in capsys.readouterr().err
    # A run that outlives a killed comparison holds the folder too.
    process.kill()
    process.communicate(timeout=60)
    assert comparison.run("--model.delay=30") == 2
    identifier = comparison.out / "runs" / "fakeapp" / "none-seed0" / "version_0" / "pid"
    wait_until(lambda: identifier.is_file() and identifier.read_text() != "")
    os.kill(int(identifier.read_text()), signal.SIGKILL)
    wait_until(lambda: _is_free(comparison.out))


def test_file_systems_without_locks_are_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_the_target_of_a_link_in_the_place_of_the_lock_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "notes.txt")
    with lock_folder(tmp_path):
        assert (tmp_path / "notes.txt").read_text() == "mine"


def _is_free(out: Path) -> bool:
    try:
        with lock_folder(out):
            return True
    except ValueError:
        return False

"""Two commands do not train the same run at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordconv_apps.runs.lock import RunLock
from coordconv_apps.runs.summary import write_summary
from coordconv_apps.utils.errors import UserError
from tests.cli.test_resume import fit, interrupted_fit
from tests.helpers.processes import ROOT
from tests.helpers.refusals import refusal
from tests.helpers.runs import load


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first, second = RunLock(), RunLock()
    write_summary(tmp_path, {"process": "process 12 on there"})
    first.acquire(tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path} is in use: process 12 on there is training this run; stop it"):
        second.acquire(tmp_path)
    first.release()
    second.acquire(tmp_path)
    second.release()


def test_temporary_files_of_a_killed_training_are_removed(tmp_path: Path) -> None:
    """The process is killed within a write, which nothing can clean up."""
    kill = "import os, sys; from pathlib import Path; from coordconv_apps.utils.files import atomic_write"
    kill += "\nwith atomic_write(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    left = [tmp_path / name for name in ("config.yaml", "pictures/a.png", "checkpoints/last.ckpt", "test_0/table.csv")]
    for path in left:
        subprocess.run([sys.executable, "-c", kill, str(path)], cwd=ROOT, check=False)
    (tmp_path / ".mine").touch()
    lock = RunLock()
    lock.acquire(tmp_path)
    lock.release()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    (evaluation,) = set(files) - {tmp_path / ".mine"}  # another command may be writing there
    assert evaluation.parent.name == "test_0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_process_that_is_forked_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = RunLock()
    lock.acquire(tmp_path)
    wait, end = os.pipe()
    forked, started = os.pipe()
    if (child := os.fork()) == 0:
        os.close(end)
        os.write(started, b"1")
        os.read(wait, 1)
        os._exit(0)
    os.read(forked, 1)
    with pytest.raises(UserError):
        RunLock().acquire(tmp_path)  # this process still has it
    lock.release()
    again = RunLock()
    try:
        again.acquire(tmp_path)
    finally:
        again.release()
        os.close(end)
        os.waitpid(child, 0)


def test_a_run_that_is_being_trained_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = interrupted_fit(tmp_path, "SIGINT@train3")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    lock = RunLock()
    lock.acquire(run)
    try:
        refused = refusal(capsys, fit, tmp_path, "--ckpt_path=last", "--model.trouble=null")
    finally:
        lock.release()
    assert f"{run} is in use: process {os.getpid()} on " in refused
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    fit(tmp_path, "--ckpt_path=last", "--model.trouble=null")
    assert load(run)["run"]["epochs"] == 3

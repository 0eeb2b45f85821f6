"""A full disk: one line that names the file, a status of its own, no leftovers, and the checkpoint before survives.

So it is with a limit on file sizes; and no command needs space for temporary files elsewhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from coordconv_apps.cli import command_record
from coordconv_apps.runs.csv_log import CsvLog
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.utils.errors import as_storage_error
from coordconv_apps.utils.files import atomic_write
from coordconv_apps.utils.warning_filters import filter_warnings
from tests.helpers.limits import file_size_limit
from tests.toy.__main__ import main

FULL = "cannot be written: no space left on device"


def full(path: object = None) -> OSError:
    """What Python raises where writing needs more space than there is."""
    return OSError(errno.ENOSPC, "No space left on device", *([] if path is None else [str(path)]))


def test_a_file_is_named_and_its_temporary_one_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    error = full(tmp_path / "temporary")
    with suppress(OSError), atomic_write(path) as file:
        file.write("a part")
        raise error
    assert error.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_full_device_names_the_log(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log.log_metrics({"loss": 1.0}, 0)
    log.save()
    log.file.unlink()
    log.file.symlink_to("/dev/full")
    log.log_metrics({"loss": 2.0}, 1)
    with pytest.raises(OSError, match=r"metrics\.csv"):
        log.save()


def test_error_of_a_full_disk_names_tensorboard(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with filter_warnings():
        writer = SummaryWriter(tmp_path)
        writer.add_text("text", "longer than allowed" * 20)
        with file_size_limit(200), pytest.raises(OSError, match="File too large") as raised:
            writer.flush()
        for thread in set(threading.enumerate()) - before:
            thread.join()
    told = str(as_storage_error(raised.value, tmp_path))
    assert told.startswith(f"the events of TensorBoard in {tmp_path}: cannot be written: larger than the limit")


@pytest.mark.parametrize(("reader", "reason"), [(None, "no space left on device"), ("closed", "broken pipe")])
def test_unwritable_output_ends_the_command_with_status_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reader: str | None, reason: str
) -> None:
    """Such as of a command whose output is piped to ``head``."""
    if reader is None:
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        end, output = os.pipe()
        os.close(end)
    with open(output, "w") as file, redirect_stdout(file), pytest.raises(SystemExit) as stopped:
        main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    assert stopped.value.code == 3
    assert capsys.readouterr().err == f"error: the output of this command: cannot be written: {reason}\n"


def test_errors_of_a_full_disk_are_found_behind_others() -> None:
    error = RuntimeError("saving failed")
    error.__cause__ = full("/runs/a.ckpt")
    assert str(as_storage_error(error)) == f"/runs/a.ckpt: {FULL}"
    assert str(as_storage_error(full(), "runs/version_0")) == f"a file in runs/version_0: {FULL}"
    assert str(as_storage_error(OSError(errno.EROFS, "", "/a"))) == "/a: cannot be written: read-only file system"
    assert (
        as_storage_error(RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")) is not None
    )
    assert as_storage_error(OSError(errno.ENOENT, "", "/a")) is None
    assert as_storage_error(ValueError("lr")) is None
    circle = ValueError("raised again")
    circle.__cause__ = OSError(errno.ENOENT, "", "/a")
    circle.__cause__.__context__ = circle
    assert as_storage_error(circle) is None


def test_full_disk_keeps_the_last_checkpoint_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    run = tmp_path / "toy" / "default" / "version_0"
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    capsys.readouterr()

    def save(trainer: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise full()

    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    later = iter([None])  # only the first summary can be written
    monkeypatch.setattr(command_record, "write_summary", lambda *_: next(later, True) and _raise(full()))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert stopped.value.code == 3
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}")
    assert error.endswith(f"checkpoints/best.ckpt: {FULL}\n") or error.endswith(f"checkpoints/last.ckpt: {FULL}\n")
    assert error.count("\n") == 1
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    monkeypatch.undo()
    main(["fit", f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert read_summary(run)["epochs"] == 2
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["run"]["epochs"] == 2


def _raise(error: Exception) -> bool:
    raise error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_logger_threads_print_no_traceback_of_a_full_disk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    for error, shown in ((full(), False), (ValueError("a defect"), True)):
        with filter_warnings():
            thread = threading.Thread(target=_raise, args=(error,))
            thread.start()
            thread.join()
        assert ("Traceback" in capsys.readouterr().err) == shown
    assert threading.excepthook is threading.__excepthook__


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", f"--runs_dir={runs}", "--trainer.max_epochs=1"])
    return runs


@pytest.mark.parametrize(
    ("command", "size", "name"),
    [
        ("fit --name=new", 0, "new/version_0/config.yaml"),
        ("fit --name=new", 2500, "new/version_0/checkpoints/best.ckpt"),
        ("fit --ckpt_path=last", 200, "version_0/config.yaml"),
        ("fit --ckpt_path=last", 2500, "version_0/checkpoints/last.ckpt"),
        ("test --ckpt_path=last", 200, "version_0/test_0/config.yaml"),
        ("predict --ckpt_path=last", 200, "version_0/predict_0/config.yaml"),
        ("export --ckpt_path=last --format=plain", 2500, "version_0/export_0/export/network_plain.pt2"),
    ],
)
def test_file_size_limit_is_reported_and_keeps_the_last_checkpoint(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, size: int, name: str
) -> None:
    runs = shutil.copytree(trained, tmp_path / "runs")
    last = runs / "toy" / "default" / "version_0" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    arguments = [*command.split(), f"--runs_dir={runs}", *(["--trainer.max_epochs=3"] if "fit" in command else [])]
    capsys.readouterr()
    with file_size_limit(size), pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 3, error
    assert error.startswith("error: ")
    assert f"/{name}: cannot be written: larger than the limit on file sizes (ulimit -f)" in error
    assert error.count("\n") == 1
    assert [path for path in runs.rglob(".*") if path.name != ".lock"] == []
    assert last.read_bytes() == before
    assert (last.parents[1] / "config.yaml").is_file()
    if command.startswith("fit"):
        main(arguments)


@pytest.mark.parametrize("command", ["fit", "test", "predict", "export --format=all"])
def test_no_space_for_temporary_files_is_needed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Such as in a small ``TMPDIR``: all files are written to the run's folder."""
    runs = shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        tempfile.mkstemp()
    more = ["--trainer.max_epochs=2"] if command == "fit" else []
    main([*command.split(), f"--runs_dir={runs}", "--ckpt_path=last", *more])


@pytest.mark.parametrize("failing", ["write_summary", "print_end"])
def test_interruption_keeps_status_130_if_its_report_cannot_be_written(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    end, output = os.pipe()
    os.close(end)
    with open(output, "w") as closed:  # as that of `... | tee log`, where Ctrl-C ends both
        later = iter([None])  # only the first summary can be written
        if failing == "write_summary":
            monkeypatch.setattr(command_record, failing, lambda *_: next(later, True) and _raise(full()))
        else:
            monkeypatch.setattr(command_record, failing, lambda *_: print("end", file=closed, flush=True))
        with pytest.raises(SystemExit) as stopped:
            main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--model.trouble=SIGINT@train3"])
        with suppress(OSError):
            closed.close()
    assert stopped.value.code == 130
    error = f"error: a file in {tmp_path}/toy/default/version_0: {FULL}\n"
    assert capsys.readouterr().err == (error if failing == "write_summary" else "")

"""The command line of every application: ``python -m <app> fit | validate | test | predict | export``.

`coordconv_apps.cli.model_class.preview` finds the task class and the checkpoint;
`coordconv_apps.cli.arguments.ArgumentsCLI` parses the command line and completes it from the checkpoint;
`coordconv_apps.cli.run_cli.RunCLI` creates the run folder, loggers, callbacks and the trainer, and starts it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from lightning.pytorch.callbacks import Callback

from coordconv_apps.cli.application import Application
from coordconv_apps.cli.arguments import AlreadyFinished
from coordconv_apps.cli.command_record import CommandRecord
from coordconv_apps.cli.data_class import DataChoice
from coordconv_apps.cli.launch import end_processes
from coordconv_apps.cli.run_cli import RunCLI
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.training.divergence import as_divergence
from coordconv_apps.training.signals import Interrupted, Interrupts, raised_as_interrupted
from coordconv_apps.training.task import Task
from coordconv_apps.utils.distributed import is_first_here, is_main_process
from coordconv_apps.utils.errors import (
    UserError,
    as_memory_shortage,
    as_storage_error,
    debugging,
    discard_output,
    is_user_error,
    one_line,
    output_failed,
    shortened,
)
from coordconv_apps.utils.memory import keep_freed_memory
from coordconv_apps.utils.warning_filters import filter_warnings


def run(
    app: str,
    task_class: type[Task],
    datamodule_class: type[DataModule],
    args: Sequence[str] | None = None,
    *,
    default_task: type[Task] | None = None,
    callbacks: Sequence[type[Callback]] = (),
    choose_data: DataChoice | None = None,
    package: str | None = None,
) -> None:
    """Run one command of an application: the whole body of its ``__main__``.

    Args:
        app: Name of the application, as in the folders of its runs.
        task_class: The base class of the tasks.
        datamodule_class: The data module.
        args: The command line; ``sys.argv`` if None.
        default_task: The task if neither the command line nor a config file names one; ``task_class`` if None.
        callbacks: Callbacks of the application, such as `Pictures`. The arguments of each are flags under its name in
            snake case.
        choose_data: Returns the data module for the given arguments of the data, such as ``{"source": "coco"}``, for an
            application with several data modules; ``datamodule_class`` is the default.
        package: The application, as in ``python -m <package>``, which has the shipped configs; if None, the package
            that has ``task_class`` in its module ``tasks``. Needed with a task of another application.

    Raises:
        SystemExit: Status 2 for a user's mistake, 3 for a full or read-only disk, 130 for Ctrl-C, 143 for SIGTERM,
            138 for SIGUSR1 (on Linux), 1 for a training that has diverged. Any other error is raised unchanged on the
            first process.
    """
    package = package or task_class.__module__.partition(".tasks")[0]
    application = Application(
        app, package, task_class, default_task or task_class, datamodule_class, choose_data, callbacks
    )
    record = CommandRecord(app, package)
    interrupts = Interrupts()
    status = 1
    try:
        interrupts.install()
        keep_freed_memory()
        with filter_warnings(), raised_as_interrupted():
            RunCLI(application, args, record, interrupts)
        record.finish("finished")
        status = 0
    except AlreadyFinished as reason:
        if is_main_process():
            print(reason)
        status = 0
    except Interrupted as signal:
        interrupts.ignore()
        status = _end_interrupted(signal, record)
    except Exception as error:
        interrupts.ignore()
        exit_status = _end_failed(error, record)
        if exit_status is None:
            raise
        status = exit_status
    finally:
        end_processes(record.trainer, failed=status != 0)
        record.lock.release()
        interrupts.restore()
    if status:
        sys.exit(status)


def _end_interrupted(signal: Interrupted, record: CommandRecord) -> int:
    """Record that a signal has ended the command; return the exit status."""
    try:
        record.finish("interrupted", signal)
    except OSError as error:
        if output_failed(error):  # as in `... | tee log`, where Ctrl-C ends both
            discard_output()
        elif is_first_here():
            print(f"error: {one_line(as_storage_error(error, record.folder) or error)}", file=sys.stderr)
    if record.folder is None:  # it has not begun
        record.discard()
    # Lightning kills the first process if one that it started exits with a status other than 0.
    return signal.exit_status if is_first_here() else 0


def _end_failed(error: Exception, record: CommandRecord) -> int | None:
    """Record and print the error that has ended the command; return the exit status, or None if it must be raised."""
    found: UserError | None = (
        as_storage_error(error, record.folder)
        or as_memory_shortage(error, record.sizes)
        or as_divergence(error, record.learning_rates)
    )
    if output_failed(error):
        discard_output()
    reported = found or error
    is_mistake = found is not None or is_user_error(error, record.running)
    with suppress(OSError):  # such as a full disk, which is often this error
        record.finish("failed", reported)
    if is_mistake and not debugging():
        if not record.running:
            record.discard()
        line = shortened(one_line(reported))
        if is_first_here():  # printed once
            print(f"error: {line}", file=sys.stderr)
        elif record.running and not getattr(reported, "raised_by_all", False):  # nobody else knows of it
            rank = record.trainer.global_rank if record.trainer is not None else None
            print(f"error in process {rank}: {line}", file=sys.stderr)
    elif is_mistake or not is_first_here():
        traceback.print_exc()  # at once, since the first process may end this one
    else:
        return None
    return reported.exit_status if isinstance(reported, UserError) else 2 if is_mistake else 1

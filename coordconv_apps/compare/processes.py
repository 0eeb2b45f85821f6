"""Run the jobs of a comparison side by side, and stop them cleanly on Ctrl-C or SIGTERM."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from queue import SimpleQueue
from types import FrameType

from coordconv_apps.compare.application import last_error_line
from coordconv_apps.compare.jobs import Job, Plan, Stage
from coordconv_apps.compare.progress import Progress
from coordconv_apps.utils.errors import StorageError
from coordconv_apps.utils.files import named_in_errors

GRACE_SECONDS = 60.0  # how long a terminated run may take to save last.ckpt before it is killed
POLL_SECONDS = 0.2  # how often signals are checked


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect signals (Ctrl-C, SIGTERM, SIGUSR1, a closed terminal) in a list, instead of ending the program.

    An exception from a handler could come between the start of a process and its registration.
    """
    stop: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        stop.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it, and so must we
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class JobRunner:
    """Run jobs in threads, each of which waits for the process that it started: see `run_jobs`."""

    def __init__(self, plan: Plan, environments: Sequence[Mapping[str, str]], lock: int, progress: Progress) -> None:
        self.failures: dict[Job, str] = {}
        self._plan = plan
        self._lock = lock
        self._progress = progress
        self._slots: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for environment in environments:
            self._slots.put({**os.environ, "PYTHONUNBUFFERED": "1", **environment})
        self._guard = threading.Lock()  # guards the next two
        self._running: dict[Job, tuple[Stage, subprocess.Popen[bytes]]] = {}
        self._stopping = False

    def stages(self) -> dict[Job, Stage]:
        """Return the running jobs and their stages."""
        with self._guard:
            return {job: stage for job, (stage, _) in self._running.items()}

    def run(self, job: Job) -> None:
        """Run the stages that a job has left; add it to `failures` if one of them fails. Nothing runs after a stop."""
        if self._stopping:
            return
        environment = self._slots.get()
        started = time.monotonic()
        try:
            self._progress.say(f"started  {job.name} (log: {self._plan.log(job)})")
            error = None
            for stage in self._plan.stages(job):
                error = error or self._run_stage(job, stage, environment)
            if self._stopping:
                return
            seconds = time.monotonic() - started
            self._progress.finish(job)
            if error is None:
                self._progress.say(f"finished {job.name} in {seconds:.0f} s")
            else:
                self.failures[job] = error
                self._progress.say(f"FAILED   {job.name} after {seconds:.0f} s: {error}")
        except BaseException:  # such as an output that nobody reads any more
            with self._guard:
                self._stopping = True  # the error ends the comparison
            raise
        finally:
            self._slots.put(environment)

    def _run_stage(self, job: Job, stage: Stage, environment: Mapping[str, str]) -> str | None:
        """Run one process to its end; return an error message, or None.

        Raises:
            StorageError: The process could not write a file: the next one could not either.
        """
        command, path = self._plan.command(job, stage), self._plan.log(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with named_in_errors(path), path.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            start_of_output = log.tell()
            with self._guard:
                if self._stopping:
                    return "interrupted"
                try:
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        pass_fds=[self._lock],
                        start_new_session=True,  # Ctrl-C reaches it through this process alone, and only once
                    )
                except OSError as error:
                    return f"{stage} did not start: {error}"
                self._running[job] = stage, process
        status = process.wait()
        with self._guard:
            del self._running[job]
        if status == 0 and self._plan.finished(job, stage) is not None:
            return None
        _kill(process)  # a failed rank must not leave the others on the devices
        how = _ending(status)
        last = last_error_line(path.read_bytes()[start_of_output:].decode(errors="replace"))
        if status == StorageError.exit_status:
            raise StorageError(f"{job.name}: {last.removeprefix('error: ')}")
        with named_in_errors(path), path.open("ab") as log:  # which tells whether the log itself has space
            log.write(f"{stage} {how}\n".encode())
        return f"{stage} {how}: {last}"

    def stop(self, stop: Sequence[int]) -> None:
        """Ask the running processes to save their state and end; kill them at a further signal or after a minute."""
        with self._guard:
            self._stopping = True
            running = {job: process for job, (_, process) in self._running.items()}
        if not running:
            return
        signals = len(stop)
        for process in running.values():
            process.terminate()  # it alone: its data-loader workers must live until it has finished its batch
        names = ", ".join(job.name for job in running)
        with contextlib.suppress(OSError):  # such as an output that nobody reads any more
            self._progress.say(f"stopping {names}: waiting for their checkpoints (once more kills them)")
        deadline = time.monotonic() + GRACE_SECONDS
        while any(process.poll() is None for process in running.values()):
            if len(stop) > signals or time.monotonic() > deadline:
                for process in running.values():
                    _kill(process)
            time.sleep(POLL_SECONDS)


def _ending(status: int) -> str:
    """Say how a process ended that did not finish its stage."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}" if status else "ended without a finished summary.json"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a process and everything that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_jobs(
    plan: Plan, jobs: Sequence[Job], environments: Sequence[Mapping[str, str]], lock: int, stop: Sequence[int]
) -> dict[Job, str]:
    """Run jobs side by side until all have ended or a signal came; return the error message of each that failed.

    Args:
        plan: The comparison.
        jobs: The jobs to run; each must have a stage left.
        environments: Environment variables of each slot; each slot runs one job at a time.
        lock: A file descriptor that the processes keep open: the lock of the comparison's folder.
        stop: The signals that `stop_signals` collects.
    """
    progress = Progress(plan, len(jobs))
    runner = JobRunner(plan, environments, lock, progress)
    pool = ThreadPoolExecutor(len(environments))
    try:
        left = {pool.submit(runner.run, job) for job in jobs}
        while left and not stop:
            done, left = wait(left, POLL_SECONDS)
            for future in done:
                future.result()  # raises the thread's exception
            progress.update(runner.stages())
    finally:
        runner.stop(stop)
        pool.shutdown(cancel_futures=True)
        progress.close()
    return runner.failures

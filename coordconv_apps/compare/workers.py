"""The processes of a comparison: jobs side by side, their progress, and a clean end on Ctrl-C or SIGTERM."""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import IO, Any

from tqdm import tqdm

from coordconv_apps.compare.runs import Job, Plan, Stage, TrainingProgress, read_progress

GRACE_SECONDS = 60.0  # what a terminated run may take to save last.ckpt before it is killed
POLL_SECONDS = 0.2
PROGRESS_SECONDS = 2.0  # how often the metric logs of the active runs are read
SHOWN_METRICS = 3  # in a line about an epoch; the rest is in the run's log
FIT_SHARE = 0.95  # of a job on the progress bar; the rest is its test

_ERROR_LINE = re.compile(r"^(error: .*|([A-Za-z_]\w*\.)*[A-Za-z_]\w*(Error|Exception|Interrupt)\b.*)$")


class StopSignals:
    """Counts Ctrl-C, SIGTERM and a closed terminal in a `with` block, in place of ending the program.

    An exception out of a handler could come between the start of a child and the note of it; a count cannot.
    """

    def __init__(self) -> None:
        self.count = 0
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in self._numbers():
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @staticmethod
    def _numbers() -> list[signal.Signals]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it, and so must we
            numbers.append(signal.SIGHUP)
        return numbers

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number


class Worker:
    """A job under way: starts its stages one after the other, and says how far it is.

    Args:
        plan: The comparison.
        job: The job.
        environment: Environment variables of its processes, on top of this process's own.
        inherited: A file descriptor that the processes keep open (the lock of the comparison's folder).
    """

    def __init__(self, plan: Plan, job: Job, environment: Mapping[str, str], inherited: int) -> None:
        self.job = job
        self.error: str | None = None
        self._plan = plan
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._inherited = inherited
        self._stages = deque(plan.stages(job))
        self._start_of_log = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._start_next()

    def _start_next(self) -> None:
        self.stage: Stage = self._stages.popleft()
        command = self._plan.command(self.job, self.stage)
        path = self._plan.log(self.job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            self._start_of_log = log.tell()
            try:
                self._process = self._spawn(command, log)
            except OSError as error:
                self.error = f"{self.stage} did not start: {error}"

    def _spawn(self, command: list[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            pass_fds=[self._inherited],
            start_new_session=True,  # Ctrl-C reaches it through this process alone, and only once
        )

    def ended(self) -> bool:
        """Returns whether the job is over (`error` says how); starts its next stage where one is due."""
        if self.error is not None:
            return True
        code = self._process.poll() if self._process is not None else None
        if code is None:
            return False
        self.error = self._stage_error(code)
        if self.error is not None:
            self.kill()  # a failed rank must not leave the others on the devices
        elif self._stages:
            self._start_next()
            return self.error is not None
        return True

    def _stage_error(self, code: int) -> str | None:
        plan, job = self._plan, self.job
        done = plan.fitted(job) if self.stage == "fit" else plan.tested(job)
        if code == 0 and done is not None:
            return None
        how = f"ended with status {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        elif code == 0:
            how = "ended without a finished summary.json"
        return f"{self.stage} {how}: {self._last_error_line()}"

    def _last_error_line(self) -> str:
        with self._plan.log(self.job).open("rb") as log:
            log.seek(self._start_of_log)
            text = log.read().decode(errors="replace")
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        errors = [line for line in lines if _ERROR_LINE.match(line)]
        return (errors or lines or ["(no output)"])[-1]

    def progress(self) -> TrainingProgress:
        """Returns how far the training is."""
        folders = self._plan.versions(self.job)
        return read_progress(folders[0]) if folders else TrainingProgress(0, None, {})

    def terminate(self) -> None:
        """Asks the process to save its state and end."""
        # The process alone: its data-loader workers must live until it has finished its batch.
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the process and everything that it started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def alive(self) -> bool:
        """Returns whether its process is still there."""
        return self._process is not None and self._process.poll() is None


class Progress:
    """Shows what the jobs do: a bar on a terminal, plain lines elsewhere.

    Args:
        total: Number of jobs to run.
    """

    def __init__(self, total: int) -> None:
        self._terminal = sys.stderr.isatty()
        self._fractions: dict[Job, float] = {}
        self._shown: dict[Job, int] = {}
        self._last_read = 0.0
        layout = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}]{postfix}"
        self._bar = tqdm(
            total=float(total), disable=not self._terminal, bar_format=layout, smoothing=0, dynamic_ncols=True
        )

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._terminal:
            tqdm.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def ended(self, job: Job) -> None:
        """Moves the bar to the end of a job."""
        self._fractions[job] = 1.0
        self._draw()

    def update(self, workers: Sequence[Worker]) -> None:
        """Reads how far the active jobs are, at most every two seconds."""
        if time.monotonic() - self._last_read < PROGRESS_SECONDS:
            return
        self._last_read = time.monotonic()
        texts = []
        for worker in workers:
            if worker.stage == "test":
                self._fractions[worker.job] = FIT_SHARE
                texts.append(f"{worker.job.name} test")
                continue
            progress = worker.progress()
            epoch = f"epoch {progress.epochs}" + (f"/{progress.of}" if progress.of is not None else "")
            texts.append(f"{worker.job.name} {epoch}")
            self._fractions[worker.job] = FIT_SHARE * min(progress.epochs / (progress.of or math.inf), 1.0)
            if progress.epochs != self._shown.get(worker.job, 0) and not self._terminal:
                values = [f"{name} {value:.4g}" for name, value in progress.metrics.items()]
                self.say(f"  {worker.job.name}: {epoch} {' '.join(values[:SHOWN_METRICS])}")
            self._shown[worker.job] = progress.epochs
        self._bar.set_postfix_str(", ".join(texts), refresh=False)
        self._draw()

    def _draw(self) -> None:
        self._bar.n = sum(self._fractions.values())
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def run_jobs(
    plan: Plan,
    jobs: Sequence[Job],
    environments: Sequence[Mapping[str, str]],
    inherited: int,
    stop: StopSignals,
) -> dict[Job, str]:
    """Runs jobs side by side, as many at a time as there are environments, until all ended or a signal came.

    Args:
        plan: The comparison.
        jobs: The jobs to run; each must have a stage left.
        environments: Environment variables of each place in which a job can run.
        inherited: A file descriptor that the processes keep open.
        stop: Counts signals; at the first, running jobs are asked to save their state and end.

    Returns:
        What went wrong, of each job that failed.
    """
    if not jobs:
        return {}
    waiting = deque(jobs)
    active: dict[int, Worker] = {}
    failures: dict[Job, str] = {}
    progress = Progress(len(jobs))
    starts: dict[Job, float] = {}
    try:
        while (waiting or active) and not stop.count:
            for place in range(len(environments)):
                if place not in active and waiting:
                    job = waiting.popleft()
                    active[place] = Worker(plan, job, environments[place], inherited)
                    starts[job] = time.monotonic()
                    progress.say(f"started  {job.name} (log: {plan.log(job)})")
            for place, worker in list(active.items()):
                if worker.ended():
                    del active[place]
                    _report_end(worker, time.monotonic() - starts[worker.job], failures, progress)
            progress.update(list(active.values()))
            time.sleep(POLL_SECONDS if active else 0)
    finally:
        _end_all(list(active.values()), stop, progress)
        progress.close()
    return failures


def _report_end(worker: Worker, seconds: float, failures: dict[Job, str], progress: Progress) -> None:
    progress.ended(worker.job)
    if worker.error is None:
        progress.say(f"finished {worker.job.name} in {seconds:.0f} s")
    else:
        failures[worker.job] = worker.error
        progress.say(f"FAILED   {worker.job.name} after {seconds:.0f} s: {worker.error}")


def _end_all(workers: Sequence[Worker], stop: StopSignals, progress: Progress) -> None:
    alive = [worker for worker in workers if worker.alive()]
    if not alive:
        return
    signals = stop.count
    for worker in alive:
        worker.terminate()
    names = ", ".join(worker.job.name for worker in alive)
    progress.say(f"stopping {names}: waiting for their checkpoints (once more kills them)")
    deadline = time.monotonic() + GRACE_SECONDS
    while any(worker.alive() for worker in alive):
        if stop.count > signals or time.monotonic() > deadline:
            for worker in alive:
                worker.kill()
        time.sleep(POLL_SECONDS)

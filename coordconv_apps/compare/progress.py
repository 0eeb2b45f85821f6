"""Show the progress of a comparison's jobs."""

import math
import sys
import threading
import time
from collections.abc import Mapping

from tqdm import tqdm

from coordconv_apps.compare.jobs import Job, Plan, Stage
from coordconv_apps.runs.config import read_argument
from coordconv_apps.runs.metrics import read_metrics
from coordconv_apps.runs.summary import read_summary

READ_SECONDS = 2.0  # how often the metric logs of the running jobs are read
SHOWN_METRICS = 3  # in a line about an epoch without the headline metric; the rest is in the run's log
FIT_SHARE = 0.95  # fraction of a job on the progress bar that is its training; the rest is its test


class Progress:
    """Show the progress of jobs: a bar on a terminal, plain lines elsewhere. Threads may share it."""

    def __init__(self, plan: Plan, total: int) -> None:
        self._plan = plan
        self._terminal = sys.stderr.isatty()
        self._lock = threading.RLock()
        self._fractions: dict[Job, float] = {}
        self._shown: dict[Job, int] = {}
        self._last_read = 0.0
        layout = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}]{postfix}"
        hidden = not self._terminal
        self._bar = tqdm(total=float(total), disable=hidden, bar_format=layout, smoothing=0, dynamic_ncols=True)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        with self._lock:
            if self._terminal:
                tqdm.write(line, file=sys.stdout)
            else:
                print(line, flush=True)

    def finish(self, job: Job) -> None:
        """Move the bar to the end of a job."""
        with self._lock:
            self._fractions[job] = 1.0
            self._draw()

    def update(self, running: Mapping[Job, Stage]) -> None:
        """Read the progress of the running jobs, at most every two seconds."""
        if time.monotonic() - self._last_read < READ_SECONDS:
            return
        self._last_read = time.monotonic()
        with self._lock:
            self._bar.set_postfix_str(", ".join(self._read(job, running[job]) for job in running), refresh=False)
            self._draw()

    def _read(self, job: Job, stage: Stage) -> str:
        """Return a job's progress as text, and store it as a fraction for the bar."""
        if stage == "test":
            self._fractions[job] = FIT_SHARE
            return f"{job.name} test"
        epochs, last, most, headline = 0, {}, None, None
        for folder in self._plan.training_folders(job)[:1]:
            most, headline = read_argument(folder, "trainer.max_epochs"), read_summary(folder).get("headline")
            for row in read_metrics(folder):
                validation = {name: value for name, value in row.items() if name.startswith("val/")}
                if validation and "epoch" in row:
                    epochs, last = int(row["epoch"]) + 1, validation
        limit = most if isinstance(most, int) and most > 0 else None
        epoch = f"epoch {epochs}" + (f"/{limit}" if limit is not None else "")
        self._fractions[job] = FIT_SHARE * min(epochs / (limit or math.inf), 1.0)
        names = [headline] if headline in last else list(last)[:SHOWN_METRICS]
        line = " ".join([job.name + ":", epoch, *(f"{name} {last[name]:.4g}" for name in names)])
        if epochs != self._shown.get(job, 0) and not self._terminal:
            self.say(f"  {line}")
        self._shown[job] = epochs
        return line

    def _draw(self) -> None:
        self._bar.n = sum(self._fractions.values())
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

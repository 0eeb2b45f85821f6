"""Read the results of a comparison from the run folders that the application writes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.runs.config import read_argument
from coordconv_apps.runs.metrics import read_curve
from coordconv_apps.runs.summary import Summary, read_summary


@dataclass(frozen=True)
class Result:
    """One arm trained with one seed, as read from its run folders."""

    job: Job
    error: str = ""  # error message; empty if the job finished
    metrics: dict[str, float] = field(default_factory=dict)  # of the test
    parameters: int | None = None  # of the network
    seconds: float | None = None  # of training
    epochs: int | None = None  # of training
    headline: str | None = None  # the validation metric to draw
    fit_folder: Path | None = None  # of the training; None if it is not finished
    test_folder: Path | None = None
    device: str = ""  # where it was trained
    mode: str | None = None  # `max` if large values of the headline metric are good, `min` if small ones are
    fit_metrics: dict[str, float] = field(default_factory=dict)  # the last ones of the training

    @property
    def status(self) -> str:
        """Either `finished` or `failed`."""
        return "failed" if self.error else "finished"

    @property
    def folders(self) -> list[Path]:
        """The folders of the training and of the test, those that are finished."""
        return [folder for folder in (self.fit_folder, self.test_folder) if folder is not None]

    @property
    def test_headline(self) -> str:
        """Name of the headline metric in the test, which may not log it; empty if there is none."""
        return (self.headline or "").replace("val/", "test/", 1)

    def validations(self, metric: str) -> dict[int, float]:
        """Return a metric of the training, such as `val/seconds`, by epoch (from 0); empty where there is none."""
        return {} if self.fit_folder is None else read_curve(self.fit_folder, metric)

    def argument(self, name: str) -> object:
        """Return the value of an argument of the training, such as `model.game`; None where it is not known."""
        return None if self.fit_folder is None else read_argument(self.fit_folder, name)


def arms_of(results: Iterable[Result]) -> list[str]:
    """Return the arms, the one with which the others are compared first."""
    return list(dict.fromkeys(result.job.arm for result in results))


def headline_of(results: Iterable[Result]) -> str | None:
    """Return the headline metric of the validation, of the finished runs; None if they name none."""
    return next((result.headline for result in results if not result.error and result.headline), None)


def by_value(results: Iterable[Result]) -> dict[str | None, list[Result]]:
    """Group results by the value of `--over`; all of them are under None without that flag."""
    groups: dict[str | None, list[Result]] = {}
    for result in results:
        groups.setdefault(result.job.value, []).append(result)
    return groups


def collect(plan: Plan, job: Job, error: str = "") -> Result:
    """Read the result of a job, finished or failed with `error`, from its run folders."""
    fit, test = plan.finished(job, "fit"), plan.finished(job, "test")
    training = Summary() if fit is None else read_summary(fit)
    tested = Summary() if test is None else read_summary(test)
    return Result(
        job=job,
        error=error,
        metrics=_metrics(tested),
        parameters=training.get("parameters"),
        seconds=training.get("seconds"),
        epochs=training.get("epochs"),
        headline=training.get("headline") or (training.get("best") or {}).get("metric"),
        fit_folder=fit,
        test_folder=test,
        device=str(training.get("device", "")),
        mode=training.get("monitor_mode"),
        fit_metrics=_metrics(training),
    )


def _metrics(summary: Summary) -> dict[str, float]:
    metrics = {name: float(value) for name, value in (summary.get("metrics") or {}).items() if value is not None}
    return {name: value for name, value in metrics.items() if math.isfinite(value)}

"""Extend reports of `coordconv_apps.compare` with the training time to a good result, and training against test set.

Liu et al. (2018) claim that CoordConv is 150 times faster, with 10 to 100 times fewer parameters. Both factors are
measured here; the figures follow the paper's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coordconv_apps.compare.extension import Extension, Row
from coordconv_apps.compare.results import arms_of, headline_of
from coordconv_apps.report.charts import ARM_COLOURS
from coordconv_apps.utils.plotting import as_png

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from coordconv_apps.compare.jobs import Job
    from coordconv_apps.compare.results import Result

MARKERS = {"none": "s", "xy": "o", "xyr": "^"}  # points of different arms stay visible where they coincide


SAMPLED = (
    "the speed-up contains that of model.loss=sampled and of the split first layer; docs/results/coordinates.md times"
    " the plain layer in classification"
)


class Measure(NamedTuple):
    """The headline metric of a task."""

    label: str  # for readers
    unit: str
    sign: int  # 1: large values are good; -1: small ones
    trivial: float  # a value that needs no learning


# By the name of the validation metric. The trivial value is roughly that of a constant answer on the paper's canvas:
# any pixel, the middle, any square.
MEASURES = {
    "val/accuracy": Measure("accuracy", "", 1, 0.01),
    "val/euclidean_distance": Measure("Euclidean distance", " pixels", -1, 21.4),
    "val/iou": Measure("IoU", "", 1, 0.08),
}


_Curve = tuple[str, "NDArray[np.float64]", "NDArray[np.float64]"]  # arm, x and y


class Run(NamedTuple):
    """A finished training: time and measure at its validations, all ``(n,)``."""

    job: Job
    seconds: NDArray[np.float64]  # of training so far
    train: NDArray[np.float64]  # the measure on the training set
    test: NDArray[np.float64]  # and on the test set


def extend(results: Sequence[Result]) -> Extension:
    """Return rows, notes and figures; the other arms are compared with that of the first result."""
    finished = [result for result in results if not result.error]
    headline = headline_of(results)
    if headline is None:
        return Extension()
    measure = MEASURES[headline]
    arms = arms_of(results)
    runs = [_read(result, headline) for result in finished]
    rows, notes = _perfect(finished, arms)
    common = common_value(runs, measure)
    if unvalidated := [run.job.name for run in runs if not len(run.test)]:
        notes.append(f"no speed-up: {', '.join(unvalidated)} logged no validation")
    elif common is None:
        limit = f"{measure.trivial:g}{measure.unit}"
        notes.append(f"no speed-up: the test {measure.label} of some run was never better than {limit}")
    else:
        value = f"{measure.label} {common:.4g}{measure.unit}"
        seconds = {run.job: seconds_to(run, common, measure) for run in runs}
        rows.append(Row(f"seconds to {value}", seconds, ".1f"))
        notes.append(f"{value}: the best test value that every run reached at some validation")
        speed_ups = _speed_ups(seconds, arms, value)
        notes += [*speed_ups, SAMPLED] if speed_ups and any(map(_only_network_samples, finished)) else speed_ups
    notes += _parameter_ratios(finished, arms)
    drawn = [run for run in runs if len(run.test)]
    return Extension(rows, notes, _figures(drawn, arms, measure, common) if drawn else {})


def _read(result: Result, headline: str) -> Run:
    names = ("val/seconds", headline.replace("val/", "val/train_", 1), headline)
    curves = [result.validations(name) for name in names]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves], dtype=np.float64)
    return Run(result.job, *values[:, np.isfinite(values).all(axis=0)])


def _only_network_samples(result: Result) -> bool:
    """Return whether the arms with coordinates have a sampled softmax, and the baseline is another network without."""
    return result.argument("model.loss") == "sampled" and result.argument("model.baseline") is not None


def common_value(runs: Sequence[Run], measure: Measure) -> float | None:
    """Return the best test value that every run reached at some validation; None if it is trivial or there is none."""
    if not runs or not all(len(run.test) for run in runs):
        return None
    common = min((measure.sign * run.test).max() for run in runs)
    return float(measure.sign * common) if common > measure.sign * measure.trivial else None


def seconds_to(run: Run, value: float, measure: Measure) -> float:
    """Return the seconds of training until the test value was first as good as `value`, which the run reached."""
    return float(run.seconds[np.argmax(measure.sign * run.test >= measure.sign * value)])


def _perfect(results: Sequence[Result], arms: Sequence[str]) -> tuple[list[Row], list[str]]:
    rows = []
    for name in ("time_to_perfect", "epochs_to_perfect"):
        values = {result.job: result.fit_metrics[name] for result in results if name in result.fit_metrics}
        if values:
            rows.append(Row(name, values, ".1f"))
    counts = []
    for arm in arms:
        perfect = ["time_to_perfect" in result.fit_metrics for result in results if result.job.arm == arm]
        counts.append(f"{arm} {sum(perfect)} of {len(perfect)}")
    return rows, [f"runs that became perfect on both sets: {', '.join(counts)}; time_to_perfect is in seconds"]


def _speed_ups(seconds: dict[Job, float], arms: Sequence[str], value: str) -> list[str]:
    lines = []
    by_arm = {arm: {job.seed: time for job, time in seconds.items() if job.arm == arm} for arm in arms}
    base = by_arm[arms[0]]
    for arm in arms[1:]:
        seeds = [seed for seed in base if seed in by_arm[arm]]  # as in the table: seeds that both have
        if seeds:
            ratio = sum(base[seed] for seed in seeds) / sum(by_arm[arm][seed] for seed in seeds)
            count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
            lines.append(f"speed-up of {arm} over {arms[0]} at {value}: {_times(ratio)} (means over {count})")
    return lines


def _parameter_ratios(results: Sequence[Result], arms: Sequence[str]) -> list[str]:
    counts = {result.job.arm: result.parameters for result in results if result.parameters}
    base = counts.get(arms[0])
    others = [(arm, counts[arm]) for arm in arms[1:] if arm in counts]
    return [f"parameters: {arms[0]} has {_times(base / count)} as many as {arm}" for arm, count in others if base]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.3g} times"


def _figures(runs: Sequence[Run], arms: Sequence[str], measure: Measure, common: float | None) -> dict[str, bytes]:
    # Imported here, because the import takes a second and an error in the arguments should be reported at once.
    from matplotlib.figure import Figure

    train_test = Figure(figsize=(6, 6.2), layout="constrained")
    _draw_train_test(train_test.subplots(), runs, arms, measure)
    time = Figure(figsize=(8, 5), layout="constrained")
    _draw_time(time.subplots(), runs, arms, measure, common)
    for figure in (train_test, time):
        figure.legend(loc="outside lower center", ncols=len(arms) + 1)
    return {"train_test": as_png(train_test), "time": as_png(time)}


def _draw_train_test(axes: Axes, runs: Sequence[Run], arms: Sequence[str], measure: Measure) -> None:
    _draw_runs(axes, [(run.job.arm, run.train, run.test) for run in runs], arms, alpha=0.3, linewidth=0.8)
    axes.axline((0.5, 0.5), (1, 1), color="#999999", linestyle=":", linewidth=1, label="test = train", zorder=0)
    axes.set(xlabel=_axis_label("train", measure), ylabel=_axis_label("test", measure))
    axes.set_title("Each run's last validation, and its way there")
    if measure.sign > 0:
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal")
    else:
        axes.set(xscale="log", yscale="log")
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)


def _draw_time(axes: Axes, runs: Sequence[Run], arms: Sequence[str], measure: Measure, common: float | None) -> None:
    _draw_runs(axes, [(run.job.arm, run.seconds, run.test) for run in runs], arms, alpha=0.6, linewidth=1)
    if common is not None:
        text = f"{common:.4g}{measure.unit}, reached by all"
        axes.axhline(common, color="#999999", linestyle=":", linewidth=1, label=text, zorder=0)
    axes.set(xscale="log", xlabel="seconds of training", ylabel=_axis_label("test", measure))
    axes.set_title("The test set over the training of each run")
    if measure.sign > 0:
        axes.set_ylim(-0.04, 1.04)
    else:
        axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")


def _draw_runs(axes: Axes, curves: Sequence[_Curve], arms: Sequence[str], *, alpha: float, linewidth: float) -> None:
    """Plot a line for each run, and a point at its end, smaller for a later arm, which may lie on an earlier one's."""
    for place, arm in enumerate(arms):
        own = [(x, y) for of_arm, x, y in curves if of_arm == arm]
        for x, y in own:
            axes.plot(x, y, color=ARM_COLOURS[arm], alpha=alpha, linewidth=linewidth)
        if not own:
            continue
        axes.plot(
            [x[-1] for x, _ in own],
            [y[-1] for _, y in own],
            color=ARM_COLOURS[arm],
            marker=MARKERS[arm],
            markeredgecolor="white",
            markersize=12 - 2 * place,
            linestyle="",
            alpha=0.8,
            label=f"{arm} (n = {len(own)})",
        )


def _axis_label(which: str, measure: Measure) -> str:
    return f"{which} {measure.label}" + (f", in{measure.unit}" if measure.unit else "")

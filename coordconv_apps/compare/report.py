"""The outcome of a comparison: statistics over seeds, tables and the figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from coordconv_apps.compare.extension import Row
from coordconv_apps.compare.runs import Result, by_value
from coordconv_apps.utils.plotting import as_png
from coordconv_apps.utils.tables import beside_floors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)  # percentiles
ARM_COLOURS = {"none": "#555555", "xy": "#0072b2", "xyr": "#d55e00"}  # apart for the colour-blind too


def spread(values: ArrayLike) -> tuple[float, float | None]:
    """Returns the mean and the sample standard deviation, the latter None for fewer than two values.

    Args:
        values: (n,) values, n > 0.
    """
    data = np.asarray(values, dtype=np.float64)
    return float(data.mean()), float(data.std(ddof=1)) if data.size > 1 else None


def relative_difference(base: ArrayLike, other: ArrayLike) -> tuple[float, tuple[float, float] | None] | None:
    """Returns the difference of two paired means in percent of the first, and its bootstrap interval.

    Seeds are resampled with replacement, each with both of its values, so that what it does to both arms
    cancels. With few seeds such an interval is too narrow: read it as the spread seen, not as a test.

    Args:
        base: (n,) values of the first arm, one per seed.
        other: (n,) values of the other arm, with the same seeds.

    Returns:
        The difference and the 95 % percentile interval, which is None with one seed or where a resampled mean
        of the first arm is 0; None altogether without a pair, or where the mean of the first arm is 0.
    """
    pairs = np.stack([np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)])
    count = pairs.shape[1]
    if count == 0 or pairs[0].mean() == 0:
        return None
    means = pairs.mean(axis=1)
    difference = float(100 * (means[1] - means[0]) / abs(means[0]))
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    resampled = pairs[:, drawn].mean(axis=2)
    if count == 1 or (resampled[0] == 0).any():
        return difference, None
    low, high = np.percentile(100 * (resampled[1] - resampled[0]) / abs(resampled[0]), INTERVAL)
    return difference, (float(low), float(high))


def metric_names(results: Sequence[Result]) -> list[str]:
    """Returns the names of all test metrics, in the order in which the runs name them."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def table(results: Sequence[Result], further: Sequence[Row] = ()) -> str:
    """Returns the table of a comparison: Markdown, its columns aligned so that a terminal shows it well.

    Args:
        results: The results of all jobs; the first one's arm is what the others are compared with.
        further: Rows to add.
    """
    arms = list(dict.fromkeys(result.job.arm for result in results))
    finished = [result for result in results if not result.error]
    header = ["", *arms, *(f"{arm} against {arms[0]}" for arm in arms[1:])]
    rows = _metric_rows(finished)
    parameters = {r.job: float(r.parameters) for r in finished if r.parameters is not None}
    seconds = {r.job: r.seconds for r in finished if r.seconds is not None}
    rows += [Row("parameters", parameters, ",.0f"), Row("seconds", seconds, ".1f"), *further]
    return aligned([header, *(_cells(row, arms) for row in rows)])


def _metric_rows(results: Sequence[Result]) -> list[Row]:
    """A row for each metric; floors are part of the names, since they hardly depend on the arm."""
    values = {name: {r.job: r.metrics[name] for r in results if name in r.metrics} for name in metric_names(results)}
    means = {name: sum(of_jobs.values()) / len(of_jobs) for name, of_jobs in values.items()}
    names = {name: name if floor is None else f"{name} (floor {floor:.4g})" for name, _, floor in beside_floors(means)}
    return [Row(label, values[name], ".4g") for name, label in names.items()]


def _cells(row: Row, arms: Sequence[str]) -> list[str]:
    by_arm = {arm: {job.seed: value for job, value in row.values.items() if job.arm == arm} for arm in arms}
    base = by_arm[arms[0]]
    cells = [row.name, *(_mean_cell(list(by_arm[arm].values()), row.form) for arm in arms)]
    for arm in arms[1:]:
        seeds = [seed for seed in base if seed in by_arm[arm]]
        cells.append(_difference_cell([base[s] for s in seeds], [by_arm[arm][s] for s in seeds]))
    return cells


def _mean_cell(values: Sequence[float], form: str) -> str:
    if not values:
        return "n/a"
    mean, deviation = spread(values)
    if deviation is None or len(set(values)) == 1:  # such as the number of parameters
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {deviation:.2g}"


def _difference_cell(base: Sequence[float], other: Sequence[float]) -> str:
    if len(set(base)) == 1 and len(set(other)) == 1:
        base, other = base[:1], other[:1]  # no spread, no interval
    difference = relative_difference(base, other)
    if difference is None:
        return "n/a"
    percent, interval = difference
    text = f"{percent:+.1f} %"
    return text if interval is None else f"{text} [{interval[0]:+.1f}, {interval[1]:+.1f}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns are aligned.

    Args:
        rows: Its cells, those of the head first.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    lines.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def note(results: Sequence[Result]) -> str:
    """Returns the lines under the table: what the figures are, and over how many seeds."""
    arms = list(dict.fromkeys(result.job.arm for result in results))
    finished = {arm: {r.job.seed for r in results if r.job.arm == arm and not r.error} for arm in arms}
    seeds = ", ".join(f"{arm} {len(finished[arm])}" for arm in arms)
    lines = [f"Mean ± sample standard deviation over seeds (finished: {seeds}); seconds are those of training."]
    for arm in arms[1:]:
        pairs = len(finished[arms[0]] & finished[arm])
        if pairs > 1:
            line = f"95 % paired bootstrap interval in brackets, over {pairs} seeds."
        else:
            line = f"the 95 % interval is not available, it needs two seeds or more (here {pairs})."
        lines.append(f"{arm} against {arms[0]}: difference of the means in percent; {line}")
    return "\n".join(lines)


class Section(NamedTuple):
    """A part of the report: all of it, or what belongs to one value of what the comparison goes over."""

    value: str | None  # None: all of it
    results: list[Result]
    rows: list[Row]  # that the application adds


def sections(results: Sequence[Result], further: Sequence[Row] = ()) -> list[Section]:
    """Returns the parts of the report: one for each value of what the comparison goes over, else one.

    Args:
        results: The results of all jobs.
        further: Rows to add; each goes to the sections in which it has values.
    """
    found = []
    for value, group in by_value(results).items():
        own = [Row(name, {j: v for j, v in of.items() if j.value == value}, form) for name, of, form in further]
        found.append(Section(value, group, [row for row in own if row.values or value is None]))
    return found


def overview(results: Sequence[Result], over: str) -> str:
    """Returns the table of the metric that counts: a row for each value of what the comparison goes over.

    Args:
        results: The results of all jobs; the first one's arm is what the others are compared with.
        over: What the comparison goes over.
    """
    arms = list(dict.fromkeys(result.job.arm for result in results))
    finished = [result for result in results if not result.error]
    name = headline_metric(finished)
    header = [f"{name} by {over}", *arms, *(f"{arm} against {arms[0]}" for arm in arms[1:])]
    rows = []
    for section in sections(results):
        values = {r.job: r.metrics[name] for r in section.results if not r.error and name in r.metrics}
        rows.append(_cells(Row(str(section.value), values, ".4g"), arms))
    return aligned([header, *rows])


def headline_metric(finished: Sequence[Result]) -> str:
    """Returns the test metric that belongs to the validation metric that counts, else the first; empty for none.

    Args:
        finished: Results of finished jobs.
    """
    names = metric_names(finished)
    headline = next((result.headline for result in finished if result.headline), None)
    name = headline.replace("val/", "test/", 1) if headline else ""
    return name if name in names else next(iter(names), "")


def draw(results: Sequence[Result], title: str = "") -> bytes:
    """Returns a PNG: the headline validation metric by epoch, and its test counterpart by arm.

    Args:
        results: Those to draw.
        title: Above both, if there is one.
    """
    # Imported here: it costs a second that an error in the arguments should not wait for.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    finished = [result for result in results if not result.error]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    if title:
        figure.suptitle(title)
    curves, final = figure.subplots(1, 2, width_ratios=(2, 1))
    arms = list(dict.fromkeys(result.job.arm for result in results))
    headline = next((result.headline for result in finished if result.headline), None)
    _draw_curves(curves, [result for result in finished if result.curve], arms)
    curves.set(xlabel="epoch", ylabel=headline or "", title="Validation: mean and standard deviation over seeds")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    name = headline_metric(finished)
    _draw_final(final, finished, arms, name)
    final.set(xlabel="arm", ylabel=name, title="Test: each seed, mean and deviation")
    return as_png(figure)


def _draw_curves(axes: "Axes", results: Sequence[Result], arms: Sequence[str]) -> None:
    for arm in arms:
        curves = [result.curve for result in results if result.job.arm == arm]
        epochs = sorted({epoch for curve in curves for epoch in curve})
        if not epochs:
            continue
        points = [spread([curve[epoch] for curve in curves if epoch in curve]) for epoch in epochs]
        x = np.array(epochs) + 1
        mean = np.array([point[0] for point in points])
        deviation = np.array([point[1] or 0.0 for point in points])
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(x, mean, color=ARM_COLOURS[arm], marker=marker, label=f"{arm} (n = {len(curves)})")
        axes.fill_between(x, mean - deviation, mean + deviation, color=ARM_COLOURS[arm], alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()


def _draw_final(axes: "Axes", results: Sequence[Result], arms: Sequence[str], name: str) -> None:
    by_seed: dict[int, list[tuple[int, float]]] = {}
    for place, arm in enumerate(arms):
        values = {r.job.seed: r.metrics[name] for r in results if r.job.arm == arm and name in r.metrics}
        for seed, value in values.items():
            by_seed.setdefault(seed, []).append((place, value))
        if values:
            mean, deviation = spread(list(values.values()))
            axes.errorbar(place + 0.12, mean, yerr=deviation, fmt="D", capsize=5, color=ARM_COLOURS[arm])
    for points in by_seed.values():
        axes.plot(*zip(*points, strict=True), "o-", color="#999999", alpha=0.6, markersize=4, linewidth=0.8)
    axes.set_xticks(range(len(arms)), arms)
    axes.set_xlim(-0.5, len(arms) - 0.5)
    axes.grid(axis="y", alpha=0.3)

"""Tables of a comparison, as Markdown whose columns are aligned."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from coordconv_apps.compare.extension import Row
from coordconv_apps.compare.results import Result, arms_of, by_value
from coordconv_apps.utils.statistics import MIN_RUNS, mean_and_deviation, paired_difference
from coordconv_apps.utils.tables import beside_real_data


def metric_names(results: Sequence[Result]) -> list[str]:
    """Return the names of all test metrics, in the order in which the runs log them."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def metric_cells(results: Sequence[Result], further: Sequence[Row] = ()) -> list[list[str]]:
    """Return the cells of the table of all metrics and further rows, header first.

    It has the mean and deviation of each arm, and the difference from the first arm, that of the first result.
    """
    arms = arms_of(results)
    finished = [result for result in results if not result.error]
    rows = _metric_rows(finished)
    parameters = {r.job: float(r.parameters) for r in finished if r.parameters is not None}
    seconds = {r.job: r.seconds for r in finished if r.seconds is not None}
    rows += [Row("parameters", parameters, ",.0f"), Row("seconds", seconds, ".1f"), *further]
    return [_header("", arms), *(_cells(row, arms, _finished_seeds(results)) for row in rows)]


def _header(name: str, arms: Sequence[str]) -> list[str]:
    return [name, *arms, *(f"{arm} - {arms[0]}" for arm in arms[1:])]


def _metric_rows(results: Sequence[Result]) -> list[Row]:
    """Return a row for each metric; its name includes the value of real data, which hardly depends on the arm."""
    values = {name: {r.job: r.metrics[name] for r in results if name in r.metrics} for name in metric_names(results)}
    means = {name: sum(of_jobs.values()) / len(of_jobs) for name, of_jobs in values.items()}
    return [
        Row(name if real is None else f"{name} (real data {real:.4g})", values[name], ".4g")
        for name, _, real in beside_real_data(means)
    ]


def _finished_seeds(results: Sequence[Result]) -> dict[str, set[int]]:
    """Return the seeds that each arm finished, by arm."""
    return {arm: {r.job.seed for r in results if r.job.arm == arm and not r.error} for arm in arms_of(results)}


def _cells(row: Row, arms: Sequence[str], finished: Mapping[str, set[int]]) -> list[str]:
    by_arm = {arm: {job.seed: value for job, value in row.values.items() if job.arm == arm} for arm in arms}
    base = by_arm[arms[0]]
    # Seeds are named where means are over different ones, or over fewer than the note counts: a metric may be NaN.
    of_arms = [frozenset(seeds) for arm in arms if by_arm[arm] for seeds in (by_arm[arm], finished[arm])]
    name_seeds = len(set(of_arms)) > 1
    cells = [row.name, *(_mean_cell(by_arm[arm], row.form, name_seeds) for arm in arms)]
    for arm in arms[1:]:
        seeds = [seed for seed in base if seed in by_arm[arm]]
        cells.append(difference_text([base[s] for s in seeds], [by_arm[arm][s] for s in seeds], row.form))
    return cells


def _mean_cell(by_seed: Mapping[int, float], form: str, name_seeds: bool) -> str:
    if not by_seed:
        return "n/a"
    values = list(by_seed.values())
    mean, deviation = mean_and_deviation(values)
    text = f"{mean:{form}}"
    if deviation is not None and len(set(values)) > 1:  # otherwise such as the number of parameters
        text += f" ± {deviation:.2g}"
    if name_seeds:
        text += f" (seed{'' if len(values) == 1 else 's'} {', '.join(str(seed) for seed in sorted(by_seed))})"
    return text


def difference_text(base: Sequence[float], other: Sequence[float], form: str) -> str:
    """Return the mean paired difference and its 95 % interval, to two digits of the interval's half width."""
    if not base:
        return "n/a"
    difference, low, high = paired_difference(base, other)
    if math.isnan(low):
        return f"{difference:+{form}}"
    digits = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    return f"{difference:+,.{digits}f} [{low:+,.{digits}f}, {high:+,.{digits}f}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, header first, whose columns are aligned, so that a terminal shows it well, too.

    >>> print(aligned([["", "none"], ["loss", "0.5"]]))
    |      | none |
    | ---- | ---: |
    | loss |  0.5 |
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


def table_note(results: Sequence[Result]) -> str:
    """Return the notes under the table: the meaning of its figures, and the number of seeds."""
    arms = arms_of(results)
    finished = _finished_seeds(results)
    seeds = ", ".join(f"{arm} {len(finished[arm])}" for arm in arms)
    lines = [f"Mean ± sample standard deviation over seeds (finished: {seeds}); seconds are those of training."]
    for arm in arms[1:]:
        pairs = len(finished[arms[0]] & finished[arm])
        over = "1 seed" if pairs == 1 else f"{pairs} seeds"
        interval = f"a 95 % interval needs {MIN_RUNS} seeds or more"
        if pairs >= MIN_RUNS:
            interval = "in brackets its 95 % interval (paired Student's t), unless all differences are equal"
        lines.append(f"{arm} - {arms[0]}: mean difference over the {over} that both finished; {interval}.")
    return "\n".join(lines)


class Section(NamedTuple):
    """A section of the report: the results of one value of `--over`, or all of them without that flag."""

    heading: str  # such as model.game=pong; empty without --over
    value: str | None  # None without --over
    results: list[Result]
    rows: list[Row]  # of the application's extension


def sections(results: Sequence[Result], further: Sequence[Row] = (), over: str | None = None) -> list[Section]:
    """Split the report into sections: one for each value of `--over`; a single one without that flag.

    Each further row goes to the sections in which it has values.
    """
    found = []
    for value, group in by_value(results).items():
        own = [Row(name, {j: v for j, v in of.items() if j.value == value}, form) for name, of, form in further]
        heading = "" if over is None else f"{over}={value}"
        found.append(Section(heading, value, group, [row for row in own if row.values or value is None]))
    return found


def overview_cells(results: Sequence[Result], over: str) -> list[list[str]]:
    """Return the cells of the table of the headline metric: a row for each value of the argument of `--over`."""
    arms = arms_of(results)
    name = headline_metric(results)
    rows = []
    for section in sections(results):
        values = {r.job: r.metrics[name] for r in section.results if not r.error and name in r.metrics}
        row = Row(str(section.value), values, ".4g")
        rows.append(_cells(row, arms, _finished_seeds(section.results)))
    return [_header(f"{name} by {over}", arms), *rows]


def run_cells(out: Path, results: Sequence[Result]) -> list[list[str]]:
    """Return the cells of the table of all runs, header first; their folders are relative to ``out``."""
    rows = [["run", "status", "epochs", "seconds", "folders"]]
    for r in results:
        epochs, seconds = "" if r.epochs is None else str(r.epochs), "" if r.seconds is None else f"{r.seconds:.1f}"
        folders = ", ".join(str(folder.relative_to(out)) for folder in r.folders)
        rows.append([r.job.name, r.status, epochs, seconds, folders])
    return rows


def headline_metric(results: Sequence[Result]) -> str:
    """Return the headline metric in the test, else the first test metric; empty if no run that finished has one."""
    finished = [result for result in results if not result.error]
    names = metric_names(finished)
    name = next((result.test_headline for result in finished if result.headline), "")
    return name if name in names else next(iter(names), "")

"""Curves to draw: every metric that a run logged, by epoch or by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from coordconv_apps.runs.metrics import read_metrics
from coordconv_apps.utils.tables import REAL_DATA

MOST_POINTS = 300
"""Longer curves are drawn as means of neighbouring points: a page is read on a screen of a thousand pixels."""

STEP = "_step"
"""End of the name of a metric that is logged by step; its mean over the epoch has the name without it."""


class Curve(NamedTuple):
    """A metric over a training; all values are finite.

    Attributes:
        unit: What ``x`` counts, from 1.
        x: Epochs or steps, ascending.
        y: Values, as many.
    """

    unit: Literal["epoch", "step"]
    x: list[float]
    y: list[float]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read all metrics of a run by name.

    A metric that is logged by step and by epoch is returned by epoch from the second epoch on, else by step.
    """
    rows = read_metrics(folder)
    names = dict.fromkeys(name for row in rows for name in row if name not in ("epoch", "step"))
    found = {}
    for name in names:
        curve = _curve(rows, name, "step" if name.endswith(STEP) else "epoch")
        if curve.x:
            found[name] = curve
    for name in [name for name in found if name.endswith(STEP)]:
        by_step, mean = found.pop(name), name.removesuffix(STEP)
        if mean not in found or len(found[mean].x) < 2 < len(by_step.x):
            found[mean] = by_step
    return found


def _curve(rows: Iterable[Mapping[str, float]], name: str, unit: Literal["epoch", "step"]) -> Curve:
    points = {row[unit] + 1: row[name] for row in rows if name in row and unit in row and math.isfinite(row[name])}
    x = sorted(points)
    return Curve(unit, x, [points[place] for place in x])


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Return a curve of at most `most` points, each the mean of as many neighbouring ones of the given curve.

    >>> thinned(Curve("step", [1, 2, 3, 4, 5], [0, 2, 4, 6, 8]), most=3)
    Curve(unit='step', x=[1.5, 3.5, 5.0], y=[1.0, 5.0, 8.0])
    """
    size = -(-len(curve.x) // most)
    if size <= 1:
        return curve
    starts = range(0, len(curve.x), size)
    x, y = ([sum(part) / len(part) for part in (of[i : i + size] for i in starts)] for of in (curve.x, curve.y))
    return Curve(curve.unit, x, y)


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """Return the mean over runs where all of them have a value; None for fewer than two runs or nothing in common.

    >>> mean_curve([Curve("epoch", [1, 2], [0, 1]), Curve("epoch", [2, 3], [3, 4])])
    Curve(unit='epoch', x=[2], y=[2.0])
    """
    if len(curves) < 2:
        return None
    values = [dict(zip(curve.x, curve.y, strict=True)) for curve in curves]
    x = sorted(set.intersection(*(set(of_run) for of_run in values)))
    return Curve(curves[0].unit, x, [sum(of[place] for of in values) / len(values) for place in x]) if x else None


def worth_drawing(curves: Mapping[str, Sequence[Curve]], headline: str | None) -> list[str]:
    """Return the metrics to draw: the headline metric, others of the validation, those of the training, the rest.

    Metrics that stay the same in every run, and those of real data, are left out, except for the headline metric.

    >>> curves = {"lr": [3, 1], "train/loss": [2, 1], "val/a": [1, 2], "val/n": [5, 5], "val/b": [4]}
    >>> worth_drawing({name: [Curve("epoch", [1, 2], y)] for name, y in curves.items()}, headline="val/b")
    ['val/b', 'val/a', 'train/loss', 'lr']
    """
    changing = [name for name, runs in curves.items() if any(len(set(run.y)) > 1 for run in runs)]
    shown = [name for name in changing if REAL_DATA not in name]
    if headline is not None and headline in curves and headline not in shown:
        shown.append(headline)
    groups = ("val/", "train/")

    def rank(name: str) -> int:
        return -1 if name == headline else next((i for i, group in enumerate(groups) if name.startswith(group)), 2)

    return sorted(shown, key=rank)

"""Read ``metrics.csv``, the values that a run logged by epoch and by step."""

from __future__ import annotations

import csv
from pathlib import Path


def read_rows(path: Path) -> tuple[list[dict[str, str]], bool]:
    """Return the sound rows of a `metrics.csv`, each without its empty columns, and whether others are damaged.

    A last row that is cut is no damage: it is being written, or a crash has cut it.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}").splitlines()
    try:
        names = next(csv.reader(lines[:1]), [])  # only names of metrics may be quoted
    except csv.Error:
        names = []
    rows: list[dict[str, str]] = []
    bad: list[int] = []
    for number, line in enumerate(filter(None, lines[1:])):
        values = line.split(",")
        row = {name: value for name, value in zip(names, values, strict=False) if value}
        if len(values) == len(names) and _is_sound(row):
            rows.append(row)
        else:
            bad.append(number)
    return rows, bool(bad) and bad != [len(rows)]


def _is_sound(row: dict[str, str]) -> bool:
    """Return whether all values are numbers, and step and epoch are counts."""
    try:
        _ = [float(value) for value in row.values()]
        return int(row["step"]) >= 0 and int(float(row.get("epoch", 0))) >= 0
    except (KeyError, OverflowError, ValueError):
        return False


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the sound rows of a run's `metrics.csv`, each without its empty columns; no rows if there is no file."""
    try:
        rows, _ = read_rows(folder / "metrics.csv")
    except OSError:  # not there yet
        return []
    return [{name: float(text) for name, text in row.items()} for row in rows]


def read_curve(folder: Path, metric: str) -> dict[int, float]:
    """Read a metric of a run by epoch (from 0) from its `metrics.csv`; empty where there is none."""
    return {int(row["epoch"]): row[metric] for row in read_metrics(folder) if metric in row and "epoch" in row}

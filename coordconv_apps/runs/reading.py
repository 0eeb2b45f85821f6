"""Read what a run left in its folder: metrics by epoch and by step, and the arguments it was started with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the rows of a run's `metrics.csv`, each without its empty columns; no rows while it cannot be read."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except (OSError, ValueError):  # not there yet, or its last row is being written
        return []


def read_curve(folder: Path, metric: str) -> dict[int, float]:
    """Read a metric of a run by epoch (from 0) from its `metrics.csv`; empty where there is none."""
    return {int(row["epoch"]): row[metric] for row in read_metrics(folder) if metric in row and "epoch" in row}


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's `config.yaml`; an empty dictionary where there is none that can be read."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # a UnicodeDecodeError is a ValueError
        return {}
    return config if isinstance(config, dict) else {}


def read_argument(folder: Path, name: str) -> object:
    """Read an argument of a run, such as `model.game`, from its `config.yaml`; None where the file does not have it."""
    value: Any = read_config(folder)
    try:
        for key in name.split("."):
            if key not in value:  # an argument of a class
                value = value["init_args"]
            value = value[key]
    except (KeyError, TypeError):
        return None
    found: object = value
    return found

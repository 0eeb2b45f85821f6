"""Tables of metrics as aligned text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REAL_DATA = "/floor/"
"""Part of the name of a metric of real data: ``<split>/floor/<name>`` is what as many other real samples achieve where
the generated samples achieve ``<split>/<name>``. No generator can be expected to do better."""


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Format rows of cells as aligned columns, numbers with five significant digits; rows may differ in length.

    >>> print(table([("loss", 0.123456), ("accuracy", 0.5)]))
      loss      0.12346
      accuracy  0.5
    """
    texts = [[f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    columns = range(max((len(row) for row in texts), default=0))
    widths = [max((len(row[i]) for row in texts if i < len(row) - 1), default=0) for i in columns]
    return "\n".join("".join(f"  {c:<{w}}" for c, w in zip(row, widths, strict=False)).rstrip() for row in texts)


def beside_real_data(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Return each metric's name, its value and that of real data (`REAL_DATA`), or None if there is none.

    >>> beside_real_data({"test/a": 1.0, "test/floor/a": 0.5, "test/b": 2.0})
    [('test/a', 1.0, 0.5), ('test/b', 2.0, None)]
    """
    without = {name: name.replace(REAL_DATA, "/", 1) for name in metrics}
    real = {without[name]: value for name, value in metrics.items() if without[name] != name}
    alone = [name for name in metrics if without[name] == name or without[name] not in metrics]
    return [(name, metrics[name], real.get(name)) for name in alone]

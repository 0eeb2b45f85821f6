"""Tables of metrics as aligned text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


REAL_REFERENCE = "/floor/"
"""In the name of a metric: the value that real data, compared with other real data, have for the metric without it."""


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Format rows as aligned columns, numbers with five significant digits.

    Args:
        rows: Cells of each line; a line may have fewer cells than others.

    >>> print(table([("loss", 0.123456), ("accuracy", 0.5)]))
      loss      0.12346
      accuracy  0.5
    """
    texts = [[f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    columns = range(max((len(row) for row in texts), default=0))
    widths = [max((len(row[i]) for row in texts if i < len(row) - 1), default=0) for i in columns]
    return "\n".join("".join(f"  {c:<{w}}" for c, w in zip(row, widths, strict=False)).rstrip() for row in texts)


def beside_real_reference(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Pair each metric with the value of real data: ``test/name`` with ``test/floor/name``, or None.

    Args:
        metrics: Values by name, with or without those of real data.

    Returns:
        Name, value and value of real data, without rows for the latter themselves.

    >>> beside_real_reference({"test/a": 1.0, "test/floor/a": 0.5, "test/b": 2.0})
    [('test/a', 1.0, 0.5), ('test/b', 2.0, None)]
    """
    references = {
        name.replace(REAL_REFERENCE, "/", 1): value for name, value in metrics.items() if REAL_REFERENCE in name
    }
    alone = [
        name for name in metrics if REAL_REFERENCE not in name or name.replace(REAL_REFERENCE, "/", 1) not in metrics
    ]
    return [(name, metrics[name], references.get(name)) for name in alone]

"""Tables of metrics as aligned text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


FLOOR = "/floor/"
"""In the name of a metric: what the metric without it is for real data compared with real data."""


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Lines of columns, aligned: names, and values (numbers with five significant digits).

    Args:
        rows: The cells of each line; a line may end early.
    """
    texts = [[f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    columns = range(max((len(row) for row in texts), default=0))
    widths = [max((len(row[i]) for row in texts if i < len(row) - 1), default=0) for i in columns]
    return "\n".join("".join(f"  {c:<{w}}" for c, w in zip(row, widths, strict=False)).rstrip() for row in texts)


def beside_floors(metrics: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Each metric and its floor: what ``test/floor/name`` is to ``test/name``, or None.

    Args:
        metrics: Values by name, with or without floors.

    Returns:
        Name, value and floor, without rows for the floors themselves.
    """
    floors = {name.replace(FLOOR, "/", 1): value for name, value in metrics.items() if FLOOR in name}
    alone = [name for name in metrics if FLOOR not in name or name.replace(FLOOR, "/", 1) not in metrics]
    return [(name, metrics[name], floors.get(name)) for name in alone]

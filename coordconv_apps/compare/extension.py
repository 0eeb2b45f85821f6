"""What an application adds to the report of its comparisons.

Its package has a module `comparison` for that, with a function `extend(results: Sequence[Result]) -> Extension`.
Where a comparison goes over values of an argument, that is called with the results of each value, and a function
`extend_over` of the same form, if the module has one, with those of all of them.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordconv_apps.compare.runs import Job, Result, by_value, file_name


class Row(NamedTuple):
    """A row of the table, and a column of `comparison.csv`."""

    name: str
    values: Mapping[Job, float]  # of the jobs that have one
    form: str  # how a mean is written, such as ".4g"


@dataclass(frozen=True)
class Extension:
    """What an application adds to the report of its comparisons.

    Args:
        rows: Further rows of the table.
        notes: Further lines under it.
        figures: Further figures, PNG files by name: `time` is written to `comparison_time.png`.
    """

    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


NOTHING = Extension()


def find_extension(module: str, results: Sequence[Result]) -> Extension:
    """Returns what an application adds to the report; nothing where its package has no module `comparison`.

    Args:
        module: The application's package.
        results: The results of all jobs.
    """
    name = f"{module}.comparison"
    if importlib.util.find_spec(name) is None:
        return NOTHING
    added = importlib.import_module(name)
    groups = by_value(results)
    if set(groups) <= {None}:
        extension: Extension = added.extend(results)
        return extension
    whole: Extension = added.extend_over(results) if hasattr(added, "extend_over") else NOTHING
    return _joined(whole, {str(value): added.extend(group) for value, group in groups.items()})


def _joined(whole: Extension, parts: Mapping[str, Extension]) -> Extension:
    """What is added for all values, then what is added for each; rows of one name are one row."""
    rows: dict[str, Row] = {}
    for extension in (whole, *parts.values()):
        for row in extension.rows:
            before = rows.get(row.name, row)
            rows[row.name] = Row(row.name, {**before.values, **row.values}, before.form)
    notes = [*whole.notes, *(f"{value}: {line}" for value, part in parts.items() for line in part.notes)]
    figures = {
        f"{file_name(value)}_{name}": figure for value, part in parts.items() for name, figure in part.figures.items()
    }
    return Extension(list(rows.values()), notes, {**whole.figures, **figures})

"""Let an application extend the report of its comparisons.

Its package has a module `comparison` for this, with a function `extend(results: Sequence[Result]) -> Extension`. With
`--over`, that function is called with the results of each value; if the module also has a function `extend_over` of the
same form, it is called with the results of all values.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordconv_apps.compare.jobs import Job
from coordconv_apps.compare.results import Result, by_value
from coordconv_apps.utils.files import file_name


class Row(NamedTuple):
    """A row of the table, and a column of `comparison.csv`."""

    name: str
    values: Mapping[Job, float]  # by job; jobs may be missing
    form: str  # format of a mean, such as ".4g"


@dataclass(frozen=True)
class Extension:
    """Rows, notes and figures that an application adds to the report."""

    rows: Sequence[Row] = ()  # of the table
    notes: Sequence[str] = ()  # lines under the table
    figures: Mapping[str, bytes] = field(default_factory=dict)  # PNG files: `time` becomes `comparison_time.png`


NOTHING = Extension()


def find_extension(module: str, results: Sequence[Result]) -> Extension:
    """Return the extension of an application's package for all results; `NOTHING` if it has no module `comparison`."""
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
    """Join the extension for all values with those for each value; rows of the same name become one row."""
    rows: dict[str, Row] = {}
    for extension in (whole, *parts.values()):
        for row in extension.rows:
            before = rows.get(row.name, row)
            rows[row.name] = Row(row.name, {**before.values, **row.values}, before.form)
    notes = [*whole.notes, *(f"{value}: {line}" for value, part in parts.items() for line in part.notes)]
    figures = dict(whole.figures)
    for value, part in parts.items():
        figures |= {f"{file_name(value)}_{name}": figure for name, figure in part.figures.items()}
    return Extension(list(rows.values()), notes, figures)

"""What an application adds to the report of its comparisons.

Its package has a module `comparison` for that, with a function `extend(results: Sequence[Result]) -> Extension`.
"""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordconv_apps.compare.runs import Job, Result


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
    extension: Extension = importlib.import_module(name).extend(results)
    return extension

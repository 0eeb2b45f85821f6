"""Write ``metrics.csv``: one row for each call of the logger."""

from __future__ import annotations

import csv
import shutil
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from coordconv_apps.runs.metrics import read_rows
from coordconv_apps.utils.files import atomic_write, named_in_errors


class CsvLog(Logger):
    """Write metrics to ``metrics.csv``. Unlike Lightning's logger, it continues the file of a resumed run.

    Args:
        folder: The run's folder.
        keep_until: Last step whose rows are kept in an existing file; later ones were logged after the checkpoint that
            the run resumes from.
    """

    def __init__(self, folder: Path, keep_until: int = -1) -> None:
        super().__init__()
        self.file = folder / "metrics.csv"
        self.keep_until = keep_until
        self._rows: list[dict[str, Any]] | None = None  # all rows; None: not read yet
        self._columns: list[str] = []  # of the file
        self._written = 0

    @property
    def name(self) -> str:
        """Name of the logger, which Lightning requires."""
        return "csv"

    @property
    def version(self) -> str:
        """The run's folder name."""
        return self.file.parent.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.file.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        rows = self._read()
        rows.append({**{k: float(v) for k, v in metrics.items()}, "step": len(rows) if step is None else step})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Do nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def save(self) -> None:
        """Append new rows to the file, or write the whole file if there are new columns."""
        rows = self._read()
        if self._written == len(rows):
            return
        new = rows[self._written :]
        names = set(self._columns).union(*new) - {"step", "epoch"}
        columns = ["epoch", "step", *sorted(names)]
        if columns == self._columns:
            with named_in_errors(self.file), self.file.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns).writerows(new)
        else:
            with atomic_write(self.file) as file:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)
        self._columns, self._written = columns, len(rows)

    def finalize(self, status: str) -> None:
        """Write the remaining rows."""
        if self._rows is not None:
            self.save()

    def _read(self) -> list[dict[str, Any]]:
        """Return all rows, starting with those kept of the file."""
        if self._rows is None:
            self._rows = []
            if self.file.is_file():
                rows, is_damaged = read_rows(self.file)
                self._rows = [row for row in rows if int(row["step"]) <= self.keep_until]
                if is_damaged:
                    aside = self.file.with_name("metrics_damaged.csv")
                    shutil.copyfile(self.file, aside)
                    warnings.warn(f"{self.file}: damaged; a copy is kept as {aside.name}", stacklevel=2)
        return self._rows

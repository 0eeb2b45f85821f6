"""Write the files of a report: `comparison.csv`, `.md` and `.png`, and the application's extension."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from coordconv_apps.compare.extension import NOTHING, Extension, Row
from coordconv_apps.compare.jobs import file_name
from coordconv_apps.compare.plots import plot_results
from coordconv_apps.compare.results import Result
from coordconv_apps.compare.tables import (
    Section,
    aligned,
    heading,
    metric_names,
    metric_table,
    overview_table,
    sections,
    table_note,
)
from coordconv_apps.utils.files import atomic_write


def write_report(
    out: Path,
    title: str,
    command: str,
    results: Sequence[Result],
    extension: Extension = NOTHING,
    over: str | None = None,
) -> list[Path]:
    """Write `comparison.md`, `comparison.csv` and `comparison.png`, and further figures, each of them atomically.

    With `--over` there is a figure for each value, such as `comparison-pong.png`.

    Args:
        out: The folder of the comparison.
        title: Heading of the Markdown file.
        command: The command line that repeats the comparison.
        results: The results of all jobs.
        extension: The application's extension.
        over: The argument of `--over`, or None.

    Returns:
        The files: text, numbers, figures, and figures of the extension.
    """
    parts = sections(results, extension.rows)
    figures = {out / f"comparison_{name}.png": content for name, content in extension.figures.items()}
    files = {
        out / "comparison.md": _markdown(out, title, command, results, extension, over).encode(),
        out / "comparison.csv": _csv(results, extension.rows, over).encode(),
        **{
            out / figure_name(part): plot_results(part.results, "" if over is None else f"{over}={part.value}")
            for part in parts
        },
    }
    for file, content in {**figures, **files}.items():  # figures first: the text refers to them
        with atomic_write(file, "wb") as handle:
            handle.write(content)
    return [*files, *figures]


def figure_name(section: Section) -> str:
    """Return the file name of a section's figure.

    Args:
        section: A section of the report.
    """
    return "comparison.png" if section.value is None else f"comparison-{file_name(section.value)}.png"


def _csv(results: Sequence[Result], further: Sequence[Row], over: str | None) -> str:
    names = metric_names(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["arm", "seed", "status", "parameters", "seconds", "epochs", *names, *(row.name for row in further)]
    writer.writerow([*([] if over is None else [over]), *header, "error"])
    for r in results:
        cells: list[object] = [] if over is None else [r.job.value]
        cells += [r.job.arm, r.job.seed, r.status, r.parameters, r.seconds, r.epochs]
        cells += [r.metrics.get(name) for name in names]
        writer.writerow([*cells, *(row.values.get(r.job) for row in further), r.error])
    return text.getvalue()


def _markdown(
    out: Path, title: str, command: str, results: Sequence[Result], extension: Extension, over: str | None
) -> str:
    header = ["run", "status", "epochs", "seconds", "folders"]
    rows = [header]
    for r in results:
        folders = ", ".join(f"`{folder.relative_to(out)}`" for folder in r.folders)
        seconds = "" if r.seconds is None else f"{r.seconds:.1f}"
        epochs = "" if r.epochs is None else str(r.epochs)
        rows.append([r.job.name, r.status, epochs, seconds, folders])
    failures = [f"- {r.job.name} failed: `{r.error}`" for r in results if r.error]
    devices = sorted({r.device for r in results if r.device})
    parts = [
        f"# {title}",
        f"```\n{command}\n```",
        *_body(results, extension, over),
        *(["\n".join(failures)] if failures else []),
        aligned(rows),
        *([f"Device: {'; '.join(devices)}."] if devices else []),
    ]
    return "\n\n".join(parts) + "\n"


def _body(results: Sequence[Result], extension: Extension, over: str | None) -> list[str]:
    """Return tables, notes and figures, section by section."""
    notes = ["\n".join(f"- {line}" for line in extension.notes)] if extension.notes else []
    figures = [f"![{name}](comparison_{name}.png)" for name in extension.figures]
    body = []
    for section in sections(results, extension.rows):
        head = f"## {heading(section, over)}"
        picture = f"![Validation by epoch, and the test metric]({figure_name(section)})"
        body.append((head, metric_table(section.results, section.rows), table_note(section.results), picture))
    if over is None:
        [(_, shown, said, picture)] = body
        return [shown, said, *notes, picture, *figures]
    return [overview_table(results, over), *notes, *figures, *(text for texts in body for text in texts), "## All runs"]

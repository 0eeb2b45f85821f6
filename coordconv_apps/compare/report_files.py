"""Write the files of a report: `comparison.csv`, `.md` and `.png`, and the application's extension."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from coordconv_apps.compare.arguments import Settings
from coordconv_apps.compare.extension import Extension, Row
from coordconv_apps.compare.output_folder import record_figures, recorded_figures
from coordconv_apps.compare.plots import plot_results
from coordconv_apps.compare.results import Result
from coordconv_apps.compare.tables import (
    Section,
    aligned,
    metric_cells,
    metric_names,
    overview_cells,
    run_cells,
    sections,
    table_note,
)
from coordconv_apps.compare.verdict import verdict
from coordconv_apps.utils.files import atomic_write, file_name


def write_report(settings: Settings, results: Sequence[Result], extension: Extension) -> list[Path]:
    """Write `comparison.md`, `comparison.csv` and `comparison.png`, and further figures, each of them atomically.

    With `--over` there is a figure for each value, such as `comparison-pong.png`. Figures that the former
    report wrote and this one does not are deleted.
    The files are returned in this order, those of the extension last.
    """
    out, over = settings.plan.out, settings.plan.over
    figures = {out / f"comparison_{name}.png": content for name, content in extension.figures.items()}
    files = {
        out / "comparison.md": _markdown(settings, results, extension).encode(),
        out / "comparison.csv": _csv(results, extension.rows, over).encode(),
    }
    for part in sections(results, extension.rows, over):
        files[out / _figure_name(part)] = plot_results(part.results, part.heading)
    for file, content in {**figures, **files}.items():  # figures first: the text refers to them
        with atomic_write(file, "wb") as handle:
            handle.write(content)
    for former in recorded_figures(out) - {*files, *figures}:
        former.unlink()  # of a value of `--over` that is not given any more
    record_figures(out, [file for file in (*files, *figures) if file.suffix == ".png"])
    return [*files, *figures]


def _figure_name(section: Section) -> str:
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


def _markdown(settings: Settings, results: Sequence[Result], extension: Extension) -> str:
    failures = [f"- {r.job.name} failed: `{r.error}`" for r in results if r.error]
    devices = sorted({r.device for r in results if r.device})
    parts = [
        f"# {settings.app}: {' '.join(str(config) for config in settings.plan.configs)}",
        f"```\n{settings.command}\n```",
        *_body(results, extension, settings.plan.over),
        *(["\n".join(failures)] if failures else []),
        aligned(run_cells(settings.plan.out, results)),
        *([f"Device: {'; '.join(devices)}."] if devices else []),
    ]
    return "\n\n".join(parts) + "\n"


def _body(results: Sequence[Result], extension: Extension, over: str | None) -> list[str]:
    """Return tables, notes and figures, section by section."""
    notes = ["\n".join(f"- {line}" for line in extension.notes)] if extension.notes else []
    figures = [f"![{name}](comparison_{name}.png)" for name in extension.figures]
    body = []
    for section in sections(results, extension.rows, over):
        shown = aligned(metric_cells(section.results, section.rows))
        said = "\n\n".join([table_note(section.results), *verdict(section.results)])
        picture = f"![Learning curves, the test metric, and pictures of each arm]({_figure_name(section)})"
        body += [f"## {section.heading}", shown, said, picture]
    if over is None:
        _, shown, said, picture = body
        return [shown, said, *notes, picture, *figures]
    return [aligned(overview_cells(results, over)), *notes, *figures, *body, "## All runs"]

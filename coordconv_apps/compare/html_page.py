"""Write `report.html`: the comparison as one page, with charts, pictures and configurations of all arms."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coordconv_apps.compare.arguments import Settings
from coordconv_apps.compare.configuration import differences
from coordconv_apps.compare.extension import Extension
from coordconv_apps.compare.gather import curves_to_draw, final_values, pictures_by_arm
from coordconv_apps.compare.results import Result, arms_of, headline_of
from coordconv_apps.compare.tables import (
    Section,
    headline_metric,
    metric_cells,
    overview_cells,
    run_cells,
    sections,
    table_note,
)
from coordconv_apps.compare.verdict import verdict
from coordconv_apps.report.charts import curve_chart, final_chart
from coordconv_apps.report.page import MEANING, MOST_CHARTS, PAGE, write_page
from coordconv_apps.report.pictures import MOST_PICTURES, Embedded, embed, side_by_side
from coordconv_apps.runs.config import read_config
from coordconv_apps.runs.summary import read_summary

MOST_CHARTS_OF_VALUE = 3
"""Curves of each value of `--over`."""

MOST_PICTURES_OF_VALUE = 1
"""Names of pictures of each value of `--over`."""


def write_comparison_page(settings: Settings, results: Sequence[Result], extension: Extension) -> Path:
    """Write the page of a comparison into its folder, atomically."""
    out, over = settings.plan.out, settings.plan.over
    shown = [_section(part, str(place), over) for place, part in enumerate(sections(results, extension.rows, over))]
    arms = arms_of(results)
    failed = [result for result in results if result.error]
    first = _first_of_each_arm(results)
    configs = {arm: read_config(folder) for arm, (_, folder) in first.items()}
    rows = differences(configs) if len(configs) > 1 else []
    context = {
        "heading": f"{settings.app}: {', '.join(config.stem for config in settings.plan.configs)}",
        "subtitle": f"{len(results) - len(failed)} of {len(results)} runs finished; {out}",
        "warnings": [f"{result.job.name} failed: {result.error}" for result in failed],
        "sections": shown,
        "baseline": _baseline(first["none"][0]) if "none" in first else None,
        "meanings": [(arm, MEANING[arm]) for arm in arms],
        "facts": _facts(results, over),
        "overview": [] if over is None else overview_cells(results, over),
        "notes": extension.notes,
        "figures": _figures(extension, {panel.name for section in shown for panel in section["panels"]}),
        "has_several_seeds": len({result.job.seed for result in results}) > 1,
        "arms": arms,
        "differences": [["argument", *configs], *rows],
        "differences_note": (
            f"The arms differ in these arguments ({', '.join(result.job.name for result, _ in first.values())}):"
        ),
        "configs": {
            result.job.name: (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
            for result, folder in first.values()
            if (folder / "config.yaml").is_file()
        },
        "environment": _environment(results),
        "command": settings.command,
        "runs": run_cells(out, results),
    }
    path = out / PAGE
    write_page(path, "comparison.html", context)
    return path


def _section(part: Section, place: str, over: str | None) -> dict[str, Any]:
    """Return what the page shows of one value of `--over`, or of all results, by the names in the template."""
    curves = curves_to_draw(part.results)
    names = list(curves)
    most = MOST_CHARTS if over is None else MOST_CHARTS_OF_VALUE
    charts = [curve_chart(name, curves[name], f"{place}-{i}") for i, name in enumerate(names[:most])]
    name = headline_metric(part.results)
    final = [final_chart(name, final_values(part.results, name), f"{place}-final")] if name else []
    seed, pictures = pictures_by_arm(part.results)
    panels, omitted = side_by_side(pictures, MOST_PICTURES if over is None else MOST_PICTURES_OF_VALUE)
    large = 1 if names[:1] == [headline_of(part.results)] else 0
    header, *rows = metric_cells(part.results, part.rows)
    return {
        "heading": part.heading,
        "verdict": verdict(part.results),
        "table": [["metric", *header[1:]], *rows],
        "note": table_note(part.results).splitlines(),
        "large": [*charts[:large], *final],  # the headline metric, of the validation and of the test
        "charts": charts[large:],
        "more_curves": names[most:],
        "final": final,
        "panels": panels,
        "omitted": omitted,
        "pictures_note": f"From seed {seed}; drawn by the test, or by the training where the test draws none.",
    }


def _figures(extension: Extension, shown: set[str]) -> list[tuple[str, Embedded]]:
    """Return the extension's figures, without those whose pictures the page shows side by side."""
    found = []
    for name, content in extension.figures.items():
        if name not in shown:
            try:
                found.append((name.replace("_", " "), embed(content)))
            except OSError:  # no picture
                continue
    return found


def _first_of_each_arm(results: Iterable[Result]) -> dict[str, tuple[Result, Path]]:
    """Return the first result of each arm that has finished its training, and the training's folder."""
    first: dict[str, tuple[Result, Path]] = {}
    for result in results:
        if result.fit_folder is not None:
            first.setdefault(result.job.arm, (result, result.fit_folder))
    return first


def _baseline(result: Result) -> str | None:
    """Say which network the arm without coordinates trains in place of the others'; None if it is the same."""
    baseline, network = (result.argument(f"model.{name}") for name in ("baseline", "network"))
    return None if baseline in (None, network) else f"model.baseline={baseline} instead of model.network={network}"


def _facts(results: Sequence[Result], over: str | None) -> list[tuple[str, object]]:
    arms = arms_of(results)
    facts: list[tuple[str, object]] = [
        ("arms (model.coords)", ", ".join(arms)),
        ("seeds", ", ".join(str(seed) for seed in dict.fromkeys(result.job.seed for result in results))),
    ]
    if over is not None:
        facts.append((over, ", ".join(str(value) for value in dict.fromkeys(result.job.value for result in results))))
    for name, values in (
        ("epochs", [r.epochs for r in results]),
        ("trainable parameters", [None if r.parameters is None else f"{r.parameters:,}" for r in results]),
    ):
        known = list(dict.fromkeys(str(value) for value in values if value is not None))
        if known:
            facts.append((name, ", ".join(known)))
    return facts


def _environment(results: Sequence[Result]) -> list[tuple[str, object]]:
    """Return device and versions; several values of one are listed."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        summary = {} if result.fit_folder is None else read_summary(result.fit_folder)
        of_run = {key: summary.get(key) for key in ("device", "precision", "world_size")} | (
            summary.get("versions") or {}
        )
        for key, value in of_run.items():
            if value is not None:
                found.setdefault("processes of a run" if key == "world_size" else key, {})[str(value)] = None
    return [(key, ", ".join(values)) for key, values in found.items()]

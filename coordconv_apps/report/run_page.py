"""The page of one run: a training, or a validation or test of its checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path

from coordconv_apps.report.charts import curve_chart
from coordconv_apps.report.curves import read_curves, worth_drawing
from coordconv_apps.report.page import MEANING, MOST_CHARTS, PAGE, write_page
from coordconv_apps.report.pictures import find_pictures, side_by_side
from coordconv_apps.runs.summary import Summary, read_summary
from coordconv_apps.utils.tables import beside_real_data


def write_run_page(folder: Path, next_command: str | None = None) -> Path:
    """Write ``report.html`` into the folder of a command that has ended in any way, from the files there.

    Args:
        folder: The folder of a ``fit``, ``validate`` or ``test``.
        next_command: The command to type next, if there is one.
    """
    path = folder / PAGE
    write_page(path, "run.html", _context(folder, read_summary(folder), next_command))
    return path


def _context(folder: Path, summary: Summary, next_command: str | None) -> dict[str, object]:
    training = folder if summary["command"] == "fit" else folder.parent
    charts, more = _charts(training, summary)
    panels, omitted = side_by_side({str(summary["name"]): find_pictures([folder])})
    config = folder / "config.yaml"
    return {
        "heading": f"{summary['app']}: {summary['command']} of {summary['name']}",
        "subtitle": f"{summary['status']}, {_duration(summary)}; {folder}",
        "warnings": _warnings(summary),
        "lead": _lead(summary),
        "metrics": _metrics(summary),
        "metrics_note": _metrics_note(summary),
        "arm_note": f"model.coords={summary['coords']}: {MEANING.get(summary['coords'], 'an arm of its own')}.",
        "facts": _facts(summary, training),
        "charts": charts,
        "more_curves": more,
        "panels": panels,
        "omitted": omitted,
        "configs": {"this command": config.read_text(encoding="utf-8", errors="replace")} if config.is_file() else {},
        "environment": _environment(summary),
        "pictures_note": _pictures_note(summary),
        "repeat_note": _repeat_note(folder),
        "command": _command(folder, summary),
        "next": next_command,
        "next_note": "To resume it:" if summary["status"] == "interrupted" else "To test its checkpoint:",
    }


def _charts(training: Path, summary: Summary) -> tuple[list[str], list[str]]:
    curves = read_curves(training)
    names = worth_drawing({name: [curve] for name, curve in curves.items()}, summary.get("headline"))
    arm = str(summary["coords"])
    charts = [curve_chart(name, {arm: [curves[name]]}, str(i)) for i, name in enumerate(names[:MOST_CHARTS])]
    return charts, names[MOST_CHARTS:]


def _duration(summary: Summary) -> str:
    seconds = float(summary.get("seconds") or 0.0)
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _warnings(summary: Summary) -> list[str]:
    if summary["status"] == "interrupted":
        what = "training" if summary["command"] == "fit" else summary["command"]
        return [f"The {what} was interrupted: the figures are those of the moment at which it stopped."]
    return [f"The command failed: {summary['error']}"] if summary["status"] == "failed" else []


def _lead(summary: Summary) -> str:
    """Return the result in a sentence; empty if there is none."""
    remark = {"max": " (higher is better)", "min": " (lower is better)"}.get(summary.get("monitor_mode") or "", "")
    if summary["command"] != "fit":
        name = str(summary.get("headline") or "").replace("val/", f"{summary['command'].removesuffix('idate')}/", 1)
        value = summary["metrics"].get(name)
        return "" if value is None else f"{name} is {value:.4g}{remark}."
    best = summary.get("best") or {}
    if not best.get("metric") or best.get("value") is None:
        return ""
    return f"The best {best['metric']} was {best['value']:.4g}{remark}, after epoch {best['epoch'] + 1}."


def _metrics(summary: Summary) -> list[list[str]]:
    rows = beside_real_data({name: value for name, value in summary["metrics"].items() if value is not None})
    real = any(reference is not None for _, _, reference in rows)
    cells = [["metric", "value", *(["real data"] if real else [])]]
    for name, value, reference in rows:
        cells.append([name, f"{value:.5g}", *(["" if reference is None else f"{reference:.5g}"] if real else [])])
    return cells


def _metrics_note(summary: Summary) -> str:
    source = "random weights" if summary["checkpoint"] is None else f"the checkpoint {summary['checkpoint']}"
    if summary["command"] == "fit":
        source = "the last epoch"
    return f"Values of {source}. The application's documentation defines its metrics."


def _facts(summary: Summary, training: Path) -> list[tuple[str, object]]:
    source: Summary = summary if summary["command"] == "fit" else read_summary(training)
    facts: list[tuple[str, object]] = [
        ("application", summary["app"]),
        ("arm (model.coords)", summary["coords"]),
        ("seed", summary["seed"]),
        ("trainable parameters", f"{summary['parameters']:,}"),
        ("epochs of the training", source.get("epochs", summary["epochs"])),
        ("optimizer steps", source.get("steps", summary["steps"])),
        ("duration", _duration(summary)),
    ]
    return facts + list((summary.get("run_facts") or {}).items())


def _environment(summary: Summary) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("device", summary["device"]),
        ("precision", summary["precision"]),
        ("processes", summary["world_size"]),
    ]
    return rows + [(name, version or "not installed") for name, version in (summary.get("versions") or {}).items()]


def _pictures_note(summary: Summary) -> str:
    if summary["status"] == "finished":
        return "Drawn at the end of the command, with the weights that it had then."
    return "The latest that were drawn: the command did not reach its end."


def _repeat_note(folder: Path) -> str:
    if any(folder.glob("config_until_epoch_*.yaml")):
        return (
            "This trains with the last configuration from the start. The run was resumed with another one than before,"
            " which is beside it as config_until_epoch_N.yaml."
        )
    return "With the same device and versions, this gives the same result."


def _command(folder: Path, summary: Summary) -> str:
    """Return the command line that repeats the run."""
    command, checkpoint = str(summary["command"]), summary["checkpoint"]
    words = ["python", "-m", str(summary["package"]), command, "--config", str(folder / "config.yaml")]
    if command != "fit":
        words += ["--allow_random_weights"] if checkpoint is None else ["--ckpt_path", str(checkpoint)]
    return shlex.join(words)

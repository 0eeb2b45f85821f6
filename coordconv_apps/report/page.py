"""Render pages from the templates in this package: each is one HTML file that loads nothing else."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordconv_apps.report.charts import ARM_COLOURS, draw_curves, draw_final
from coordconv_apps.report.curves import Curve
from coordconv_apps.utils.files import atomic_write
from coordconv_apps.utils.plotting import as_svg

PAGE = "report.html"

MOST_CHARTS = 12
"""Curves on a page; the names of further ones are listed."""

MEANING = {
    "none": "plain convolutions, without coordinates",
    "xy": "convolutions that also see the position, x and y",
    "xyr": "convolutions that also see the position, x and y, and the distance from the centre",
}
"""What each arm is."""

CSS_COLOURS = {colour: f"var(--arm-{arm})" for arm, colour in ARM_COLOURS.items()} | {
    "#000000": "currentColor",
    "#b0b0b0": "var(--rule)",
    "#999999": "var(--quiet)",
}
"""Colours of the charts that the page's style sheet chooses, for light and dark screens."""

SIZE = (4.2, 2.7)
"""Width and height of a chart in inches: a phone shows this width without shrinking the text."""


def pages_wanted() -> bool:
    """Return whether pages are written: not with ``COORDCONV_REPORT=0``, for thousands of short runs."""
    return os.environ.get("COORDCONV_REPORT", "") != "0"


def curve_chart(name: str, by_arm: Mapping[str, Sequence[Curve]], number: str) -> str:
    """Return a chart of a metric of all arms' runs over the training; `number` is unique on the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    draw_curves(figure.subplots(), by_arm, name)
    unit = next((curve.unit for curves in by_arm.values() for curve in curves), "epoch")
    label = f"{name} by {unit}: " + "; ".join(_course(arm, curves) for arm, curves in by_arm.items())
    return as_svg(figure, f"chart{number}", label, CSS_COLOURS)


def _course(arm: str, curves: Sequence[Curve]) -> str:
    """Describe the curves of an arm for those who cannot see them."""
    if not curves:
        return f"{arm} has none"
    first, last = (sum(curve.y[end] for curve in curves) / len(curves) for end in (0, -1))
    runs = "" if len(curves) == 1 else f" (mean of {len(curves)} seeds)"
    return f"{arm} from {first:.4g} to {last:.4g}{runs}"


def final_chart(name: str, by_arm: Mapping[str, Mapping[int, float]], number: str) -> str:
    """Return a chart of a test metric by seed, an arm a line; `number` is unique on the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    draw_final(figure.subplots(), by_arm, name)
    values = (f"{arm} {', '.join(f'{v:.4g}' for v in of.values()) or 'has none'}" for arm, of in by_arm.items())
    label = f"{name} of each seed: {'; '.join(values)}"
    return as_svg(figure, f"chart{number}", label, CSS_COLOURS)


def write_page(path: Path, template: str, context: Mapping[str, object]) -> None:
    """Render a template of this package, and write the page atomically; all texts of the context are escaped."""
    # Imported when there is a page to write.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from coordconv_apps.runs.environment import package_versions

    environment = Environment(
        loader=PackageLoader("coordconv_apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    version = package_versions()["coordconv_apps"]
    text = environment.get_template(template).render(context, written=written, version=version)
    with atomic_write(path) as file:
        file.write(text)

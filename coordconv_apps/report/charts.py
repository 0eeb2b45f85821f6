"""Charts of runs: learning curves of arms, and their test metric by seed; on matplotlib axes, or as SVG for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coordconv_apps.report.curves import Curve, mean_curve, thinned
from coordconv_apps.utils.plotting import as_svg
from coordconv_apps.utils.statistics import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARM_COLOURS = {"none": "#555555", "xy": "#0072b2", "xyr": "#d55e00"}
"""Colours that the colour-blind can tell apart."""

FEW_POINTS = 12
"""Curves of at most so many points have a mark at each: a single point is not a line."""

LOG_RATIO = 100
"""Positive values whose largest is so many times the smallest are drawn on a logarithmic axis."""

CSS_COLOURS = {colour: f"var(--arm-{arm})" for arm, colour in ARM_COLOURS.items()} | {
    "#000000": "currentColor",
    "#b0b0b0": "var(--rule)",
    "#999999": "var(--quiet)",
}
"""Colours of the charts that the page's style sheet chooses, for light and dark screens."""

SIZE = (4.2, 2.7)
"""Width and height of a chart in inches: a phone shows this width without shrinking the text."""


def draw_curves(axes: Axes, by_arm: Mapping[str, Sequence[Curve]], name: str = "") -> None:
    """Draw the curves of each arm's runs, and, of several runs, their mean as a thicker line.

    Runs that logged by another unit than the first one's are left out.
    """
    from matplotlib.ticker import MaxNLocator

    unit = next((curve.unit for curves in by_arm.values() for curve in curves), "epoch")
    shown = []
    for arm, curves in by_arm.items():
        own = [curve for curve in curves if curve.unit == unit]
        shown += own
        mean = mean_curve(own)
        for curve in own:
            thin = mean is not None
            _line(axes, curve, ARM_COLOURS[arm], 0.9 if thin else 1.8, 0.45 if thin else 1.0)
        if mean is not None:
            _line(axes, mean, ARM_COLOURS[arm], 2.2, 1.0)
    axes.set(xlabel=unit)
    if name:
        axes.set_title(name, parse_math=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if not shown:
        axes.text(0.5, 0.5, "no run logged a validation", ha="center", va="center", transform=axes.transAxes)
        return
    values = [value for curve in shown for value in curve.y]
    if min(values) > 0 and max(values) > LOG_RATIO * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    places = {x for curve in shown for x in curve.x}
    if len(places) == 1:  # otherwise the axis shows a small part of an epoch
        axes.set_xlim(min(places) - 1, max(places) + 1)


def _line(axes: Axes, curve: Curve, colour: str, width: float, alpha: float) -> None:
    curve = thinned(curve)
    marker = "o" if len(curve.x) <= FEW_POINTS else ""
    axes.plot(curve.x, curve.y, color=colour, linewidth=width, alpha=alpha, marker=marker, markersize=2.5 + width / 2)


def draw_final(axes: Axes, by_arm: Mapping[str, Mapping[int, float]], name: str) -> None:
    """Draw a metric by seed, a line for each arm: a dot for each run, and the mean of several as a diamond.

    Runs of one seed are joined. The means are written beside the arms.
    """
    by_seed: dict[int, list[tuple[float, int]]] = {}
    labels = []
    for place, (arm, values) in enumerate(by_arm.items()):
        for seed, value in values.items():
            by_seed.setdefault(seed, []).append((value, place))
        axes.plot(list(values.values()), [place] * len(values), "o", color=ARM_COLOURS[arm], markersize=7, alpha=0.7)
        if not values:
            labels.append(f"{arm}\nno value")
            continue
        mean, deviation = mean_and_deviation(list(values.values()))
        labels.append(f"{arm}\n{mean:.4g}")
        if deviation is not None:
            axes.errorbar(mean, place + 0.22, xerr=deviation, fmt="D", capsize=5, color=ARM_COLOURS[arm])
    for points in by_seed.values():
        axes.plot(*zip(*points, strict=True), "-", color="#999999", alpha=0.6, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(by_arm)), labels)
    axes.set_ylim(len(by_arm) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(name or "no run logged a test metric", parse_math=False)


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

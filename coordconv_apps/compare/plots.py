"""The plot of a comparison: validation curves, and the test metric of each run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coordconv_apps.compare.results import Result
from coordconv_apps.compare.tables import headline_metric
from coordconv_apps.utils.plotting import as_png
from coordconv_apps.utils.statistics import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARM_COLOURS = {"none": "#555555", "xy": "#0072b2", "xyr": "#d55e00"}  # the colour-blind can tell them apart


def plot_results(results: Sequence[Result], title: str = "") -> bytes:
    """Plot the headline validation metric by epoch, and its test counterpart by arm; return a PNG file's content."""
    # Imported here, because the import takes a second and an error in the arguments should be reported at once.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    finished = [result for result in results if not result.error]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    if title:
        figure.suptitle(title)
    curves, final = figure.subplots(1, 2, width_ratios=(2, 1))
    arms = list(dict.fromkeys(result.job.arm for result in results))
    headline = next((result.headline for result in finished if result.headline), None)
    _plot_curves(curves, [result for result in finished if result.curve], arms)
    curves.set(xlabel="epoch", ylabel=headline or "", title="Validation: mean and standard deviation over seeds")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    epochs = [epoch + 1 for result in finished for epoch in result.curve]
    if len(set(epochs)) == 1:  # otherwise the axis shows a small part of an epoch
        curves.set_xlim(epochs[0] - 1, epochs[0] + 1)
    name = headline_metric(finished)
    _plot_final(final, finished, arms, name)
    final.set(xlabel="arm", ylabel=name, title="Test: each seed, mean and deviation")
    return as_png(figure)


def _plot_curves(axes: "Axes", results: Sequence[Result], arms: Sequence[str]) -> None:
    for arm in arms:
        curves = [result.curve for result in results if result.job.arm == arm]
        epochs = sorted({epoch for curve in curves for epoch in curve})
        if not epochs:
            continue
        points = [mean_and_deviation([curve[epoch] for curve in curves if epoch in curve]) for epoch in epochs]
        x = np.array(epochs) + 1
        mean = np.array([point[0] for point in points])
        deviation = np.array([point[1] or 0.0 for point in points])
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(x, mean, color=ARM_COLOURS[arm], marker=marker, label=f"{arm} (n = {len(curves)})")
        axes.fill_between(x, mean - deviation, mean + deviation, color=ARM_COLOURS[arm], alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
    if not axes.lines:
        axes.text(0.5, 0.5, "no run logged a validation", ha="center", va="center", transform=axes.transAxes)
    else:
        axes.legend()


def _plot_final(axes: "Axes", results: Sequence[Result], arms: Sequence[str], name: str) -> None:
    by_seed: dict[int, list[tuple[int, float]]] = {}
    for place, arm in enumerate(arms):
        values = {r.job.seed: r.metrics[name] for r in results if r.job.arm == arm and name in r.metrics}
        for seed, value in values.items():
            by_seed.setdefault(seed, []).append((place, value))
        if values:
            mean, deviation = mean_and_deviation(list(values.values()))
            axes.errorbar(place + 0.12, mean, yerr=deviation, fmt="D", capsize=5, color=ARM_COLOURS[arm])
    for points in by_seed.values():
        axes.plot(*zip(*points, strict=True), "o-", color="#999999", alpha=0.6, markersize=4, linewidth=0.8)
    axes.set_xticks(range(len(arms)), arms)
    axes.set_xlim(-0.5, len(arms) - 0.5)
    axes.grid(axis="y", alpha=0.3)

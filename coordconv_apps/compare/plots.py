"""The figure of a comparison: learning curves, the test metric of each run, and a picture of each arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from coordconv_apps.compare.gather import curves_to_draw, final_values, pictures_by_arm
from coordconv_apps.compare.results import Result, arms_of, headline_of
from coordconv_apps.compare.tables import headline_metric
from coordconv_apps.report.charts import ARM_COLOURS, draw_curves, draw_final
from coordconv_apps.utils.plotting import as_png

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

WIDTH, TALLEST_PICTURE = 11.0, 5.5
"""Width of the figure, and largest height of a picture in it, in inches."""

OTHERS = {"val/": 2, "train/": 1}
"""Number of curves below that of the headline metric, by the beginning of their names."""


def plot_results(results: Sequence[Result], title: str = "") -> bytes:
    """Plot the curves of all runs, their test metric, and the first picture of each arm; return a PNG file's content.

    The largest panel is the headline metric of the validation.
    """
    # Imported here, because the import takes a second and an error in the arguments should be reported at once.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    curves, headline = curves_to_draw(results), headline_of(results)
    others = [
        name
        for start, most in OTHERS.items()
        for name in [each for each in curves if each.startswith(start) and each != headline][:most]
    ]
    pictures = _first_pictures(results)
    heights = [4.0, *([2.4] if others else []), *([_picture_height(pictures)] if pictures else [])]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    left, right = next(rows).subplots(1, 2, width_ratios=(3, 2))
    draw_curves(left, curves.get(headline or "", {}), headline or "")
    draw_final(right, final_values(results, headline_metric(results)), headline_metric(results))
    if others:
        for axes, name in zip(next(rows).subplots(1, len(others), squeeze=False)[0], others, strict=True):
            draw_curves(axes, curves[name], name)
    if pictures:
        _show_pictures(next(rows), pictures)
    handles = []
    for arm in arms_of(results):
        count = sum(result.job.arm == arm for result in results if not result.error)
        label = f"{arm} ({count} seed{'' if count == 1 else 's'})"
        handles.append(Line2D([], [], color=ARM_COLOURS[arm], linewidth=2.2, label=label))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    if title:
        figure.suptitle(title, parse_math=False)
    return as_png(figure)


def _first_pictures(results: Sequence[Result]) -> dict[str, Image.Image]:
    """Return a picture of each arm, of the first name that all of them have; nothing if there is none."""
    _, found = pictures_by_arm(results)
    of_arms: list[Mapping[str, Path]] = list(found.values())
    for name in of_arms[0] if of_arms else ():
        if all(name in own for own in of_arms):
            try:
                return {arm: Image.open(own[name], formats=["PNG"]).convert("RGB") for arm, own in found.items()}
            except OSError:  # no picture
                continue
    return {}


def _picture_height(pictures: Mapping[str, Image.Image]) -> float:
    shape = max(picture.height / picture.width for picture in pictures.values())
    return min(TALLEST_PICTURE, WIDTH / len(pictures) * shape) + 0.35


def _show_pictures(figure: "FigureBase", pictures: Mapping[str, Image.Image]) -> None:
    for axes, (arm, picture) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(arm)
        axes.set_axis_off()

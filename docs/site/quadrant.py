"""Draw docs/pictures/quadrant.png: which positions each arm finds, from the runs of two trainings.

python -m coordconv_apps.coordinates fit --config classification_quadrant --name none --model.coords=none \
        --trainer.max_epochs=40 --trainer.check_val_every_n_epoch=10
python -m coordconv_apps.coordinates fit --config classification_quadrant --name xy --model.coords=xy
python docs/site/quadrant.py runs/coordinates/none/version_0 runs/coordinates/xy/version_0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from coordconv_apps.coordinates import CoordinateClassification
from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.pictures import (
    GROUND_COLOUR,
    RIGHT_COLOUR,
    WRONG_COLOUR,
    on_canvas,
    per_sample,
    true_pixels,
)
from coordconv_apps.utils.plotting import as_picture

NAMES = {"none": "plain convolutions", "xy": "with coordinates (CoordConv)"}
SPLIT, CANVAS = 33, 64
"""The first row and column of the quadrant; height and width of the canvas."""


def draw_task(axes: Axes, data: NotSoClevrData) -> None:
    """Show which positions are for training and which for testing."""
    canvas = np.full((CANVAS, CANVAS), np.nan)
    for value, centers in enumerate((data.centers.train, data.centers.test)):
        canvas[~np.isnan(on_canvas(centers, np.zeros(len(centers), np.float32), CANVAS))] = value
    axes.imshow(canvas, cmap=ListedColormap(["#9aa5b1", "white"]), vmin=0, vmax=1)
    axes.text(20, 20, "trained on\nthese positions", ha="center", va="center", fontsize=11)
    axes.text(46, 46, "tested on\nthese", ha="center", va="center", fontsize=11)
    axes.set_title("the task: (x, y) in,\nthe pixel at (x, y) out", fontsize=11)


def draw_arm(axes: Axes, run: Path, data: NotSoClevrData) -> None:
    """Show which positions of both sets the best checkpoint of a run finds."""
    task = CoordinateClassification.load_from_checkpoint(run / "checkpoints" / "best.ckpt", map_location="cpu").eval()
    canvas, found = np.full((CANVAS, CANVAS), np.nan, np.float32), []
    for centers in (data.centers.train, data.centers.test):
        with torch.no_grad():
            hits = per_sample(task, centers, true_pixels)[:, 1]
        found.append(f"{int(hits.sum()):,} of {len(hits):,}")
        placed = on_canvas(centers, hits, CANVAS)
        canvas[~np.isnan(placed)] = placed[~np.isnan(placed)]
    axes.imshow(canvas, cmap=ListedColormap([WRONG_COLOUR, RIGHT_COLOUR]), vmin=0, vmax=1)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    axes.set_title(
        f"{NAMES[task.coords]}\n{task.parameter_count():,} parameters, {summary['epochs']} epochs", fontsize=11
    )
    axes.set_xlabel(f"found: {found[0]} trained, {found[1]} tested", fontsize=10)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2, help="folders of the trainings without and with coordinates")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/quadrant.png"), help="file to write")
    options = parser.parse_args()
    data = NotSoClevrData(split="quadrant")
    figure = Figure(figsize=(10.5, 4.7), layout=ConstrainedLayoutEngine(h_pad=0.12))
    panels = figure.subplots(1, 3)
    draw_task(panels[0], data)
    for axes, run in zip(panels[1:], options.runs, strict=True):
        draw_arm(axes, run, data)
    for axes in panels:
        axes.set_facecolor(GROUND_COLOUR)
        axes.set(xticks=[], yticks=[])
        axes.add_patch(Rectangle((SPLIT - 0.5, SPLIT - 0.5), 27, 27, fill=False, lw=2, ls="--"))
    patches = [Patch(color=RIGHT_COLOUR, label="found"), Patch(color=WRONG_COLOUR, label="missed")]
    figure.legend(handles=patches, loc="outside lower right", ncols=2, frameon=False)
    as_picture(figure).save(options.out)


if __name__ == "__main__":
    main()

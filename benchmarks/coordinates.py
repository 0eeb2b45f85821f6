"""Measure the seconds to perfect accuracy in coordinate classification: the fast and the concatenating network.

    python benchmarks/coordinates.py [--seeds 0 1 2 3 4] [--concatenating_seeds 0] [--max_epochs 30]

Both run through the application's command line, from its shipped configs, in this process, one after the other. The
figures include Lightning, logging, checkpoints and the evaluation of all 3,136 samples after each epoch, but not
imports. The fast network is the application's. The concatenating one repeats (x, y) over the canvas, concatenates the
coordinates, and takes the softmax over all pixels. Everything else is the same: initial weights, optimizer, batches.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from coordconv_apps import CoordConv2d
from coordconv_apps.cli.app import run
from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.losses import full_cross_entropy
from coordconv_apps.coordinates.models.pixel_networks import PixelClassifier, scaled
from coordconv_apps.coordinates.tasks import CoordinateClassification, CoordinateTask
from coordconv_apps.nn.coords import coord_grid
from coordconv_apps.runs.environment import device_name
from coordconv_apps.runs.summary import read_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGS = Path(__file__).parents[1] / "coordconv_apps" / "coordinates" / "configs"
SPLITS = ("uniform", "quadrant")


class ConcatClassifier(nn.Module):
    """The classification network with coordinates concatenated at every pixel.

    Args:
        network: Network whose weights are copied.
    """

    grid: Tensor

    def __init__(self, network: PixelClassifier) -> None:
        super().__init__()
        size, first = network.canvas_size, network.first
        assert isinstance(first, CoordConv2d)
        self.size = size
        self.register_buffer("grid", coord_grid((size, size))[None])
        entry = nn.Conv2d(4, first.out_channels, 1)
        with torch.no_grad():
            entry.weight.copy_(torch.cat([first.weight, first.coord_weight], dim=1))
            entry.bias.zero_()  # type: ignore[union-attr]  # it has one
        self.layers = nn.Sequential(entry, *network.rest)

    def forward(self, centers: Tensor) -> Tensor:
        """Return logits ``(B, H, W)`` for centres ``(B, 2)`` in pixels."""
        repeated = scaled(centers, self.size)[:, :, None, None].expand(-1, -1, self.size, self.size)
        inputs = torch.cat([repeated, self.grid.expand(len(centers), -1, -1, -1)], dim=1)
        logits: Tensor = self.layers(inputs)
        return logits.squeeze(1)


class ConcatenatingTask(CoordinateClassification):
    """Coordinate classification with concatenated coordinates and the full softmax.

    Args:
        **arguments: Those of `CoordinateClassification`.
    """

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401  # CoordinateClassification's
        super().__init__(**arguments)
        assert isinstance(self.network, PixelClassifier)
        self.network = ConcatClassifier(self.network)

    def training_loss(self, centers: Tensor) -> Tensor:
        """Return the cross-entropy over all pixels."""
        return full_cross_entropy(self(centers), centers)


class Outcome(NamedTuple):
    """One training."""

    epochs: int
    perfect: bool
    seconds: float  # from setting up to the last evaluation
    total: float  # from the call of the command line to its return


def train(task: type[CoordinateClassification], split: str, seed: int, max_epochs: int) -> Outcome:
    """Train until both sets are perfect.

    Args:
        task: The application's task or the concatenating one.
        split: The split of the data.
        seed: The seed.
        max_epochs: Epochs after which to give up.
    """
    with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(io.StringIO()):
        args = [
            "fit",
            f"--config={CONFIGS / f'classification_{split}.yaml'}",
            f"--model={task.__module__}.{task.__qualname__}",
            "--model.coords=xy",
            f"--runs_dir={runs}",
        ]
        args += [f"--seed_everything={seed}", f"--trainer.max_epochs={max_epochs}", "--name=bench"]
        args.append("--model.schedule=constant")  # as in the config, whose milestones come later
        start = time.perf_counter()
        run("coordinates", CoordinateTask, NotSoClevrData, args, default_task=CoordinateClassification)
        total = time.perf_counter() - start
        summary = read_summary(Path(runs) / "coordinates" / "bench" / "version_0")
    metrics = summary["metrics"]
    return Outcome(summary["epochs"], "time_to_perfect" in metrics, metrics["val/seconds"], total)


def check() -> None:
    """Check that both networks give the same logits."""
    torch.manual_seed(0)
    fast = CoordinateClassification(coords="xy").network
    assert isinstance(fast, PixelClassifier)
    centers = torch.randint(64, (8, 2)).float()
    with torch.no_grad():
        torch.testing.assert_close(ConcatClassifier(fast)(centers), fast(centers), rtol=1e-4, atol=1e-4)


def line(name: str, split: str, outcomes: Sequence[Outcome]) -> tuple[str, float]:
    """Return a row of the table, and the median seconds to perfection (infinite if most runs did not reach it)."""
    seconds = statistics.median(o.seconds if o.perfect else float("inf") for o in outcomes)
    per_epoch = statistics.median(o.seconds / o.epochs for o in outcomes)
    epochs = statistics.median(o.epochs for o in outcomes)
    total = statistics.median(o.total for o in outcomes)
    perfect = f"{sum(o.perfect for o in outcomes)}/{len(outcomes)}"
    row = f"{name:<16} {split:<9} {perfect:>8} {epochs:>7.1f} {per_epoch:>14.2f} {seconds:>18.2f} {total:>12.2f}"
    return row, seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="seeds of the fast network")
    parser.add_argument(
        "--concatenating_seeds",
        type=int,
        nargs="+",
        default=[0],
        help="seeds of the slower, concatenating network",
    )
    parser.add_argument("--max_epochs", type=PositiveInt, default=30, help="epochs after which to give up")
    args = parser.parse_args()
    check()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device_name(device, 1)}, {torch.get_num_threads()} threads, torch {torch.__version__}, pid {os.getpid()}")
    train(CoordinateClassification, "uniform", 0, 1)  # warm up
    print(
        f"{'':<16} {'split':<9} {'perfect':>8} {'epochs':>7} {'s/epoch':>14} {'s to perfection':>18} {'s in all':>12}"
    )
    for split in SPLITS:
        fast, fast_seconds = line(
            "fast", split, [train(CoordinateClassification, split, s, args.max_epochs) for s in args.seeds]
        )
        print(fast, flush=True)
        outcomes = [train(ConcatenatingTask, split, s, args.max_epochs) for s in args.concatenating_seeds]
        concatenating, seconds = line("concatenating", split, outcomes)
        print(f"{concatenating}   {seconds / fast_seconds:.1f} times as long", flush=True)


if __name__ == "__main__":
    main()

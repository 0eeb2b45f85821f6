"""Measure the overhead of parts of the classification application, each against going without it, in turns.

    python benchmarks/classification.py                # every table
    python benchmarks/classification.py --only coords
    python benchmarks/classification.py --effort 4     # four times as long, and steadier

coords: images per second of networks with coordinates (xyr), divided by those of networks without, in training
(forward, backward and optimizer) and in evaluation. The arms of `stem` differ by coordinates alone: the extra layer of
8 channels is in both, as in the paper. `first` and `all` are compared with the library's network. With CUDA, resnet50
at 224 x 224, too.

lightning: a training through the command line, with all loggers and callbacks, against a plain loop over the same
loader, network, optimizer and schedule. They take each step in turns, so that other load on the machine affects both.
A single linear layer in place of the network shows the overhead in milliseconds.

loading: images per second that the training loader delivers within the main process, from files to floating point
numbers, divided by those that the network of the same config trains on. Training waits for data for the fraction
1 / (1 + loading / training) of each step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from jsonargparse.typing import PositiveFloat, PositiveInt
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.plain_loop import CONFIGS, LinearTask, time_lightning, train_step
from benchmarks.timing import in_turns, median_ratio, verdict
from classification.data import ClassificationData
from classification.models import build_classifier
from classification.optimizers import make_optimizer
from classification.tasks import Classifier
from classification.transforms import normalize
from coordconv_apps.nn.coords import Coords
from coordconv_apps.runs.environment import device_name
from coordconv_apps.utils.memory import keep_freed_memory

COORDS_BAR = 0.97
"""Lower bound for images per second with coordinates in the stem, divided by those without."""
LIGHTNING_BAR = 0.05
"""Upper bound for Lightning's overhead, as a fraction of a plain loop's step."""
LOADING_BAR = 1.0
"""Lower bound for images per second of a loader, divided by those of training."""


# ------------------------------------------------------------------ coords


class Setup(NamedTuple):
    """A network and its images."""

    network: str
    size: int
    batch: int
    small_images: bool = False
    num_classes: int = 10
    device: str = "cpu"
    compile: bool = False
    where: Sequence[str] = ("stem", "first", "all")

    def __str__(self) -> str:
        added = [", 3x3 first"] if self.small_images else []
        added += [", bf16"] if self.device == "cuda" else []
        added += [", compiled"] if self.compile else []
        return f"{self.network}{''.join(added)}, {self.size} x {self.size}, {self.batch}"


SETUPS = (
    Setup("resnet18", 32, 64, small_images=True),
    Setup("resnet18", 64, 32),
    Setup("resnet50", 96, 8),
)
GPU_SETUPS = tuple(
    Setup("resnet50", 224, 128, num_classes=1000, device="cuda", compile=compiled, where=("stem",))
    for compiled in (False, True)
)


def make_networks(setup: Setup) -> dict[str, nn.Module]:
    """Return a setup's networks without (`<where>-`) and with (`<where>+`) coordinates, at the same image weights.

    Without coordinates, "first" and "all" are the same network, "plain-".
    """
    wanted: dict[str, tuple[str, Coords]] = {"stem-": ("stem", "none")} if "stem" in setup.where else {}
    wanted |= {"plain-": ("first", "none")} if set(setup.where) - {"stem"} else {}
    wanted |= {f"{where}+": (where, "xyr") for where in setup.where}
    networks = {}
    for name, (where, coords) in wanted.items():
        torch.manual_seed(0)
        network = build_classifier(
            setup.network,
            num_classes=setup.num_classes,
            coords=coords,
            where=where,
            small_images=setup.small_images,
        ).to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
        if setup.compile:
            network.compile()
        networks[name] = network
    return networks


def evaluate(network: nn.Module, images: Tensor) -> None:
    """Take one step of an evaluation."""
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
        network(images)


def time_setup(setup: Setup, seconds: float) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the times of training steps, and of evaluation steps, of a setup's networks."""
    torch._dynamo.reset()
    networks = make_networks(setup)
    shape = (setup.batch, 3, setup.size, setup.size)
    images = torch.randn(shape, device=setup.device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(setup.num_classes, (setup.batch,), device=setup.device)
    steps: dict[str, Callable[[], object]] = {}
    for name, network in networks.items():
        optimizer = make_optimizer("sgd", network, 1e-3, 1e-4, nesterov=True, fused=True)
        steps[name] = partial(train_step, network, optimizer, images, labels)
    training = in_turns(steps, seconds, setup.device)
    for network in networks.values():
        network.eval()
    steps = {name: partial(evaluate, network, images) for name, network in networks.items()}
    return training, in_turns(steps, seconds / 2, setup.device)


def coords_table(options: argparse.Namespace) -> None:
    """Print images per second with and without coordinates, in training and in evaluation, and their ratios."""
    print("coords: images per second without coordinates (none) and with them (xyr)")
    print(
        f"{'network, images, batch':44}{'where':>7}{'train none':>12}{'xyr':>9}{'ratio':>8}"
        f"{'evaluate none':>15}{'xyr':>9}{'ratio':>8}{'bar':>6}"
    )
    for setup in SETUPS + (GPU_SETUPS if torch.cuda.is_available() else ()):
        times = time_setup(setup, 10 * options.effort)
        for where in setup.where:
            row, ratios = f"{setup!s:44}{where:>7}", []
            for taken, width in zip(times, (12, 15), strict=True):
                none, xyr = taken["stem-" if where == "stem" else "plain-"], taken[f"{where}+"]
                rates = [setup.batch / statistics.median(own) for own in (none, xyr)]
                ratios.append(median_ratio(none, xyr))
                row += f"{rates[0]:{width},.1f}{rates[1]:9,.1f}{ratios[-1]:8.3f}"
            bar = f"{COORDS_BAR:6.2f} {verdict(min(ratios) >= COORDS_BAR)}" if where == "stem" else ""
            print(f"{row}{bar}", flush=True)
    if not torch.cuda.is_available():
        print("resnet50, 224 x 224, bf16, eager and compiled: left out, there is no CUDA device")


# ------------------------------------------------------------------ lightning


def lightning_table(options: argparse.Namespace) -> None:
    """Print Lightning's overhead per step, in milliseconds and as a fraction of the step."""
    rows = (
        ("resnet18_small", Classifier, 10, True),
        ("quickstart", Classifier, 60, True),
        ("one linear layer", LinearTask, 600, False),
    )
    print("lightning: milliseconds of a training step, medians, and their means")
    print(
        f"{'config':20}{'plain loop':>12}{'Lightning':>11}{'added':>8}{'share':>8}{'bar':>6}{'':8}"
        f"{'mean: plain loop':>18}{'added':>8}"
    )
    for name, task, steps, has_bar in rows:
        config = name if has_bar else "quickstart"
        times = time_lightning(config, task, max(6, round(steps * options.effort)))
        ours, plain = ([1000 * value for value in column] for column in zip(*times, strict=True))
        added = [a - b for a, b in zip(ours, plain, strict=True)]
        share = statistics.median(added) / statistics.median(plain)
        bar = f"{share:8.1%}{LIGHTNING_BAR:6.0%} {verdict(share <= LIGHTNING_BAR):7}" if has_bar else " " * 22
        print(
            f"{name:20}{statistics.median(plain):12.2f}{statistics.median(ours):11.2f}{statistics.median(added):8.2f}"
            f"{bar}{statistics.fmean(plain):18.2f}{statistics.fmean(added):8.2f}",
            flush=True,
        )


# ------------------------------------------------------------------ loading


def save_pictures(folder: Path, count: int, size: int, suffix: str) -> None:
    """Save generated pictures in ten class folders: smooth and a little noisy, as photographs are."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 8, size // 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float64)
        noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        place = folder / str(number % 10) / f"{number}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(place, quality=90)  # PNG ignores the quality


def deliver(data: ClassificationData, task: Classifier) -> int:
    """Iterate over an epoch of the training loader, normalise, and return the number of images."""
    return sum(len(normalize(batch.images, task.mean, task.std)) for batch in data.train_dataloader())


def loading_row(config: str, root: Path | None, batch: int, seconds: float) -> tuple[float, float, float]:
    """Return images per second of a config's loader and of its training, and their ratio.

    Args:
        config: Name of a config of the application.
        root: Folder of the pictures, if the config needs one.
        batch: Batch size of the timed training.
        seconds: Duration of the measurement.
    """
    settings = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text(encoding="utf-8"))
    data = ClassificationData(**settings["data"] | {"num_workers": 0, "root": None if root is None else str(root)})
    data.setup("fit")
    torch.manual_seed(0)
    task = Classifier(**settings["model"]["init_args"] | {"num_classes": data.num_classes, "weights": None})
    optimizer = make_optimizer(
        task.optimizer, task.network, 1e-3, task.weight_decay, nesterov=task.nesterov, fused=True
    )
    pixels, labels, _ = next(iter(data.train_dataloader()))
    images = normalize(pixels[:batch], task.mean, task.std).contiguous(memory_format=task.memory_format)
    runs: dict[str, Callable[[], object]] = {
        "load": partial(deliver, data, task),
        "train": partial(train_step, task.network, optimizer, images, labels[:batch], task.label_smoothing),
    }
    loading, training = in_turns(runs, seconds).values()
    count = data.num_samples("train") * data.repeats
    ratio = median_ratio(training, loading) * count / len(images)
    return count / statistics.median(loading), len(images) / statistics.median(training), ratio


def loading_table(options: argparse.Namespace) -> None:
    """Print images per second of loaders and of the trainings that use them."""
    print("loading: images per second, no workers")
    print(f"{'config':20}{'pictures':26}{'loading':>10}{'training':>10}{'ratio':>8}{'bar':>6}{'':8}{'waiting':>8}")
    rows = (
        ("quickstart", "digits, 8 x 8", None, 64),
        ("resnet18_small", "PNG, 32 x 32", (640, 32, "png"), 64),
        ("finetune_resnet50", "JPEG, 256 x 256, at 224", (140, 256, "jpg"), 4),  # a batch of 64 takes 6 GB
    )
    for config, name, pictures, batch in rows:
        with tempfile.TemporaryDirectory() as folder:
            root = None if pictures is None else Path(folder)
            if pictures is not None:
                save_pictures(Path(folder), *pictures)
            loading, training, ratio = loading_row(config, root, batch, 6 * options.effort)
        bar = f"{LOADING_BAR:6.0f} {verdict(ratio > LOADING_BAR):7}"
        print(
            f"{config:20}{name:26}{loading:10,.1f}{training:10,.1f}{ratio:8.1f}{bar}{1 / (1 + ratio):8.1%}", flush=True
        )


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {
    "coords": coords_table,
    "lightning": lightning_table,
    "loading": loading_table,
}


def main() -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description="Ratios of the classification application, measured in one run.")
    parser.add_argument("--only", choices=list(TABLES), help="print this table alone")
    parser.add_argument(
        "--effort", type=PositiveFloat, default=1.0, help="how long to measure, 1 is about three minutes"
    )
    parser.add_argument("--threads", type=PositiveInt, default=os.cpu_count(), help="threads of a training")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    names = ", ".join(device_name(torch.device(device), 1) for device in devices)
    print(f"{names}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options)


if __name__ == "__main__":
    main()

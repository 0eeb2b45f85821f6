"""Measure the speed of parts of the generative application, each against an obvious implementation, in turns.

    python benchmarks/generative.py              # every table
    python benchmarks/generative.py --only data

data: two-shape images per second, drawn and rendered by `generative.two_shapes`, against a loop over images that draws
with PIL.

training: steps per second of training with Lightning: plain convolutions (none), the CoordConv generator (xy), and the
same generator with latents repeated over the image and coordinates concatenated. The two arms have different networks,
as in the paper: xy / none compares the cost of the arms, not of coordinates alone.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, too

from benchmarks.timing import best_times
from coordconv_apps.utils.memory import keep_freed_memory
from generative.data import GenerativeData
from generative.models import CoordConvGenerator
from generative.tasks import GAN, VAE
from generative.two_shapes import Scenes, draw_scenes, render

CONFIGS = [
    Path(__file__).resolve().parents[1] / "generative" / "configs" / f"quickstart_{method}.yaml"
    for method in ("dcgan", "vae")
]
TASKS: dict[str, type[GAN | VAE]] = {"generative.GAN": GAN, "generative.VAE": VAE}

SIZE, RADIUS = 64, 10
BATCH = 128
RED, BLUE = (255, 0, 0), (0, 0, 255)
DATA_BAR = 20.0
"""Lower bound for the speed-up of the data over the loop."""


# ------------------------------------------------------------------ data


def paint(centers: list[list[int]], shapes: list[int]) -> npt.NDArray[np.uint8]:
    """Paint one image, uint8 `(H, W, 3)`, of the centres and shapes (1: square) of a red and a blue object."""
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    brush = ImageDraw.Draw(picture)
    # Blue first: red is seen where they overlap.
    for (x, y), square, colour in reversed(list(zip(centers, shapes, (RED, BLUE), strict=True))):
        draw = brush.rectangle if square else brush.ellipse
        draw((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=colour)
    return np.asarray(picture)


def draw_in_a_loop(count: int, floats: bool) -> tuple[list[npt.NDArray[Any]], Scenes]:
    """Make images the obvious way: one by one, centres drawn until they are far enough apart.

    Args:
        count: Number of images.
        floats: Whether images are float32, -1 to 1, instead of uint8, 0 to 255.

    Returns:
        Batches of images `(n, 3, H, W)`, and the scenes of all of them.
    """
    rng = np.random.default_rng(0)
    batches, images, centers, shapes = [], [], [], []
    for number in range(1, count + 1):
        while True:
            places = rng.integers(RADIUS, SIZE - RADIUS, (2, 2))
            if np.hypot(*(places[0] - places[1])) >= 2 * RADIUS:
                break
        kinds = rng.integers(2, size=2)
        image: npt.NDArray[Any] = paint(places.tolist(), kinds.tolist()).transpose(2, 0, 1)
        images.append(image.astype(np.float32) / 127.5 - 1 if floats else image)
        centers.append(places)
        shapes.append(kinds)
        if number % BATCH == 0 or number == count:
            batches.append(np.stack(images))
            images = []
    return batches, Scenes(torch.from_numpy(np.stack(centers)), torch.from_numpy(np.stack(shapes)))


def draw_fast(count: int, floats: bool) -> None:
    """Make images by `generative.two_shapes`, batch by batch, as the data module does."""
    scenes = draw_scenes(count, SIZE, RADIUS, torch.Generator().manual_seed(0))
    for start in range(0, count, BATCH):
        render(scenes.at(slice(start, start + BATCH)), SIZE, RADIUS, torch.float32 if floats else torch.uint8)


def data_table(options: argparse.Namespace) -> None:
    """Print images per second of both ways, as bytes and as floating point numbers, and their ratio."""
    few = max(1, options.images // 25)
    batches, scenes = draw_in_a_loop(few, floats=False)
    differing = (np.concatenate(batches) != render(scenes, SIZE, RADIUS).numpy()).any(1).mean()
    print(f"data: {options.images:,} two-shape images of {SIZE} x {SIZE}, radius {RADIUS} (by the loop {few:,})")
    print(f"{'images':10}{'PIL loop /s':>16}{'two_shapes /s':>22}{'ratio':>8}{'bar':>6}{'other pixels':>14}")
    for kind, floats in (("uint8", False), ("float32", True)):
        slow_time, fast_time = best_times(
            options.repeats,
            partial(draw_in_a_loop, few, floats),
            partial(draw_fast, options.images, floats),
        )
        slow, fast = few / slow_time, options.images / fast_time
        print(f"{kind:10}{slow:16,.0f}{fast:22,.0f}{fast / slow:8.1f}{DATA_BAR:6.0f}{differing:14.2%}")


class Clock(Callback):
    """Time training steps.

    Args:
        warm_up: Steps that do not count, at least 1.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.times: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Record the time."""
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median time of a step, in seconds."""
        return float(statistics.median(np.diff(self.times[self.warm_up - 1 :]).tolist()))


class ConcatenatingGenerator(nn.Module):
    """The CoordConv generator with latents repeated over the image and coordinates concatenated.

    Args:
        generator: Generator whose layers are copied, with new weights.
    """

    def __init__(self, generator: CoordConvGenerator) -> None:
        super().__init__()
        self.size = generator.image_size
        self.first = nn.Conv2d(generator.first.in_channels + 2, generator.first.out_channels, 1)
        self.rest = copy.deepcopy(generator.rest)
        self.rest[0] = nn.ReLU(inplace=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Generate images before the tanh, ``(B, 3, H, W)``, from latents ``(B, latent_size)``."""
        axis = torch.linspace(-1, 1, self.size, device=latents.device)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        grid = torch.stack([x, y]).expand(len(latents), -1, -1, -1)
        points = latents[:, :, None, None].expand(-1, -1, self.size, self.size)
        images: Tensor = self.rest(self.first(torch.cat([points, grid], dim=1)))
        return images


def time_training(config: Path, arm: str, options: argparse.Namespace) -> float:
    """Return the seconds of one training step with Lightning, data loading included.

    Args:
        config: A config of the application.
        arm: "none", "xy", or "concatenated", which has a `ConcatenatingGenerator` in place of the generator of "xy".
        options: Parsed command line, with the number of steps.
    """
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = settings["model"]
    coords = "none" if arm == "none" else "xy"
    task = TASKS[model["class_path"]](**model["init_args"] | {"coords": coords})
    if arm == "concatenated":
        assert isinstance(task.generator, CoordConvGenerator)
        task.generator = ConcatenatingGenerator(task.generator).to(memory_format=torch.channels_last)
        task._start_average(model["init_args"].get("average", 0.0))
    warm_up = max(1, options.steps // 4)
    images = (options.steps + warm_up) * settings["data"].get("batch_size", 16)
    data = GenerativeData(**settings["data"] | {"num_train": max(4096, images)})
    clock = Clock(warm_up)
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=1,
        precision=options.precision,
        max_epochs=1,
        limit_train_batches=options.steps + warm_up,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(task, datamodule=data)
    return clock.seconds()


def training_table(options: argparse.Namespace) -> None:
    """Print training steps per second of both arms, and of the concatenating CoordConv generator."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    print(f"training: steps per second, {options.threads} threads")
    print(f"{'config':22}{'none':>10}{'xy':>10}{'concatenated':>14}{'xy / none':>11}{'xy / concatenated':>19}")
    for config in options.configs:
        times: dict[str, list[float]] = {"none": [], "xy": [], "concatenated": []}
        for _ in range(options.rounds):
            for arm, taken in times.items():
                taken.append(time_training(config, arm, options))
        none, xy, plain = (1 / min(taken) for taken in times.values())
        print(f"{config.stem:22}{none:10.1f}{xy:10.1f}{plain:14.1f}{xy / none:11.2f}{xy / plain:19.2f}", flush=True)


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {"data": data_table, "training": training_table}


def main() -> None:
    """Print the tables that the command line asks for."""
    parser = argparse.ArgumentParser(description="Ratios of the generative application, measured in one run.")
    parser.add_argument("--only", choices=list(TABLES), help="print this table alone")
    parser.add_argument("--images", type=PositiveInt, default=50_000, help="images drawn for the table of data")
    parser.add_argument("--repeats", type=PositiveInt, default=5, help="the shortest of so many runs counts")
    parser.add_argument("--configs", type=Path, nargs="+", default=CONFIGS, help="configurations to train")
    parser.add_argument("--steps", type=PositiveInt, default=60, help="training steps that are timed, in each round")
    parser.add_argument("--rounds", type=PositiveInt, default=3, help="times that each arm is timed, in turns")
    parser.add_argument("--threads", type=PositiveInt, default=os.cpu_count(), help="threads of a training")
    parser.add_argument("--accelerator", default="cpu", help="as Lightning's trainer takes it")
    parser.add_argument("--precision", default="32-true", help="as Lightning's trainer takes it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, table in TABLES.items():
        if options.only in (None, name):
            table(options)


if __name__ == "__main__":
    main()

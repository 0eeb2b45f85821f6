"""Tiny tasks, data and trainers, made-up generators, and a callback that records a training."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torchmetrics import Metric

from generative.data import GenerativeData
from generative.datasets import ImageBatch
from generative.latent_walks import measure_walks
from generative.tasks import GAN, VAE, GenerativeTask
from tests.helpers.metrics import together
from tests.helpers.trainers import own_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coordconv_apps.nn.coords import Coords
    from generative.latent_walks import WalkMeasurements

METHODS = pytest.mark.parametrize("method", [GAN, VAE])

SIZE, RADIUS = 32, 5
"""Of the images of made-up generators."""


def task(method: type[GenerativeTask] = GAN, **arguments: Any) -> Any:  # noqa: ANN401  # handed on; of any method
    width = "discriminator_width" if issubclass(method, GAN) else "encoder_width"
    tiny: dict[str, Any] = {"coords": "xy", "image_size": 16, "latent_size": 4, "width": 2, width: 2}
    return method(**(tiny | arguments))


def data(**arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    tiny = {"image_size": 16, "radius": 2, "num_train": 12, "num_val": 40, "num_test": 40, "batch_size": 4}
    return GenerativeData(**(tiny | arguments))


trainer = partial(own_trainer, max_epochs=1, limit_val_batches=0)


class Caching(MixedPrecision):
    """Rounds each weight once in a training step, as other versions of Lightning do."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)


MIXED: dict[str, dict[str, Any]] = {"cached": {"plugins": [Caching()]}, "uncached": {"precision": "bf16-mixed"}}


class Watch(Callback):
    """Keeps, of every batch: its images, the random numbers before it, and after it rates, weights and buffers."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.random: list[Tensor] = []
        self.rates: list[list[float]] = []
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: ImageBatch, batch_idx: int) -> None:  # noqa: ANN401  # Lightning's
        self.images.append(batch.images.clone())
        self.random.append(torch.get_rng_state())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *unused: Any) -> None:  # noqa: ANN401  # Lightning's
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


@contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    """As a trainer of such a precision sets it for every step."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fitted(folder: Path, one: GenerativeTask, there: GenerativeData | None = None, **arguments: Any) -> Watch:  # noqa: ANN401
    watch = Watch()
    trainer(folder, callbacks=[watch], **arguments).fit(one, data() if there is None else there)
    return watch


# ------------------------------------------------------------------ made-up generators


def soft_shapes(centers: Tensor, squareness: Tensor, size: int, radius: int) -> Tensor:
    """Images (B, 3, H, W) of soft-edged objects at centres (B, 2, 2), each a circle at 0 and a square at 1 (B, 2)."""
    x, y = (
        pixels - centers[..., axis, None, None]
        for axis, pixels in enumerate(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"))
    )
    square = squareness[..., None, None]
    distance = (1 - square) * x.hypot(y) + square * torch.maximum(x.abs(), y.abs())
    red, blue = (2 * (radius + 0.5 - distance)).sigmoid().unbind(1)
    blue = blue * (1 - red)
    return 1 - 2 * torch.stack([blue, red + blue, red], 1)


def apart(latents: Tensor) -> Tensor:
    """Latents 0 and 1 move red up and down by 8 pixels and across by 1, 2 and 3 do so with blue, beside it."""
    x = torch.stack([6 + latents[:, 1], 25 + latents[:, 3]], 1)
    y = 15.5 + 8 * latents[:, [0, 2]]
    return soft_shapes(torch.stack([x, y], -1), torch.zeros(len(latents), 2), SIZE, RADIUS)


def draw_uniform(number: int, seed: int, size: int = 5) -> Tensor:
    return 2 * torch.rand(number, size, generator=torch.Generator().manual_seed(seed)) - 1


def walks_of(
    sample: Callable[[Tensor], Tensor], *, latents: int = 5, each: int = 2, steps: int = 5, reach: float = 1.0
) -> WalkMeasurements:
    """The figures of walks along all latents, as many along each."""
    axes = torch.arange(latents).repeat_interleave(each)
    return measure_walks(sample, draw_uniform(len(axes), 0, latents), axes, RADIUS, steps=steps, reach=reach)


def everywhere(latents: Tensor) -> Tensor:
    """Red in the upper half and blue in the lower, at places that latents 0 to 3 choose; 4 and 5 choose the shapes."""
    u = latents.clamp(-1, 1)
    x = 15.5 + 10.5 * u[:, [0, 1]]
    y = torch.tensor([8.0, 23.0]) + 3 * u[:, [2, 3]]
    return soft_shapes(torch.stack([x, y], -1), (u[:, 4:6] > 0).float(), SIZE, RADIUS)


class MadeUpGAN(GAN):
    """A task that generates by a function of its latents (B, 6)."""

    def __init__(self, rule: Callable[[Tensor], Tensor] = everywhere, coords: Coords = "xy") -> None:
        super().__init__(coords, image_size=SIZE, latent_size=6, width=2, discriminator_width=2)
        self.rule = rule
        self.batches: list[int] = []

    def sample(self, latents: Tensor) -> Tensor:
        self.batches.append(len(latents))
        return self.rule(latents)


class MadeUpVAE(VAE):
    """A task that generates by a function of its latents (B, 6), and reconstructs by adding a half."""

    def __init__(self, rule: Callable[[Tensor], Tensor] = everywhere, coords: Coords = "xy") -> None:
        super().__init__(coords, image_size=SIZE, latent_size=6, width=2, encoder_width=2)
        self.rule = rule
        self.batches: list[int] = []

    def sample(self, latents: Tensor) -> Tensor:
        self.batches.append(len(latents))
        return self.rule(latents)

    def reconstruct(self, images: Tensor) -> Tensor:
        return (images + 0.5).clamp(max=1)


def of_two_processes(
    make: Callable[[], Metric], real: Tensor, generated: Tensor, first_share: float
) -> dict[str, float]:
    """Return the values of a metric whose images two processes share."""
    processes = [make(), make()]
    for images, is_real in ((generated, False), (real, True)):
        cut = int(first_share * len(images))
        for process, part in zip(processes, (images[:cut], images[cut:]), strict=True):
            for batch in (*part.split(8), part[:0]) if len(part) else ():
                process.update(batch, real=is_real)
    return {name: float(value) for name, value in together(make(), *processes).compute().items()}

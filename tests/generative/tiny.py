"""Tiny tasks, data and trainers, and what is kept of a training."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor

from generative.data import GenerativeData, ImageBatch
from generative.task import GenerativeTask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN_TRAINER = [
    # Of a tiny run with Lightning's own trainer, none of which says anything about the task.
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]

METHODS = pytest.mark.parametrize("method", ["gan", "vae"])


def task(**arguments: Any) -> GenerativeTask:  # noqa: ANN401  # handed on as they are
    tiny: dict[str, Any] = {"coords": "xy", "image_size": 16, "latent_size": 4, "width": 2, "discriminator_width": 2}
    return GenerativeTask(**(tiny | arguments))


def data(**arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    tiny = {"image_size": 16, "radius": 2, "num_train": 12, "num_val": 40, "num_test": 40, "batch_size": 4}
    return GenerativeData(**(tiny | arguments))


def trainer(folder: Path, **arguments: Any) -> Trainer:  # noqa: ANN401  # handed on as they are
    settings: dict[str, Any] = {"max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **(settings | arguments),
    )


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

"""Time a training of the classification application against the same training in a plain loop."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from classification.data import ClassificationData
from classification.in_memory import InMemoryImages
from classification.optimizers import make_optimizer
from classification.pictures import ClassificationPictures
from classification.predictions import ClassificationPredictionWriter
from classification.tasks import Classifier
from classification.transforms import normalize
from coordconv_apps.cli.app import run
from coordconv_apps.data.splits import Split
from coordconv_apps.training.schedules import lr_factor
from coordconv_apps.utils.config_files import class_path

CONFIGS = Path(__file__).resolve().parents[1] / "classification" / "configs"

LEFT_OUT = 3
"""Steps at the beginning whose times do not count."""


def train_step(
    network: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Take one training step of a plain loop, in bfloat16 on a GPU, and return the loss."""
    with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
        loss = F.cross_entropy(network(images), labels, label_smoothing=smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


class RandomPictures(ClassificationData):
    """Random images in memory, for all steps of the training."""

    def prepare_data(self) -> None:
        """Download nothing."""

    def _images(self, split: Split) -> InMemoryImages:
        assert self.trainer is not None
        batches = self.trainer.limit_train_batches
        assert isinstance(batches, int)
        generator = torch.Generator().manual_seed(0)
        shape = ((batches if split == "train" else 1) * self.batch_size, 3, self.image_size, self.image_size)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        return InMemoryImages(images, torch.randint(self.num_classes, shape[:1], generator=generator))

    @property
    def class_names(self) -> list[str]:
        """The classes by label."""
        return [str(label) for label in range(self.num_classes)]


class LinearTask(Classifier):
    """The task with one linear layer on 8 x 8 pixels in place of the network."""

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401  # Classifier's
        super().__init__(**arguments)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, self.num_classes))


class PlainLoop(Callback):
    """After each training step, take the same step in a plain loop over a copy, and record the time of both."""

    times: ClassVar[list[tuple[float, float]]] = []
    """Seconds of each step by Lightning and by the plain loop, of the last training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the network, and create the plain loop's optimizer and loader."""
        task, data = pl_module, trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        assert isinstance(task, Classifier)
        assert isinstance(data, ClassificationData)
        self.task, self.data = task, data
        self.network = copy.deepcopy(task.network)
        self.optimizer = make_optimizer(
            task.optimizer,
            self.network,
            float(task.run_facts["peak_lr"]),
            task.weight_decay,
            task.momentum,
            task.betas,
            nesterov=task.nesterov,
            fused=True,
        )
        steps = trainer.estimated_stepping_batches
        self.scheduler = LambdaLR(self.optimizer, lr_factor(task.schedule, steps, warmup=task.warmup))
        self.batches = iter(data.train_dataloader())
        PlainLoop.times.clear()
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Take the step in the plain loop, and compare the losses of the first steps."""
        lightning_done = time.perf_counter()
        loss = self._step()
        done = time.perf_counter()
        PlainLoop.times.append((lightning_done - self.started, done - lightning_done))
        if batch_idx < LEFT_OUT:  # later, rounding errors have grown
            assert isinstance(outputs, dict)
            torch.testing.assert_close(loss, outputs["loss"], rtol=1e-3, atol=1e-3)
        self.started = time.perf_counter()

    def _step(self) -> Tensor:
        pictures, labels, _ = next(self.batches)
        images = normalize(pictures, self.task.mean, self.task.std).contiguous(memory_format=self.task.memory_format)
        loss = train_step(self.network, self.optimizer, images, labels, self.task.label_smoothing)
        self.scheduler.step()
        return loss


def time_lightning(config: str, task: type[Classifier], steps: int) -> list[tuple[float, float]]:
    """Train through the command line, and return the seconds of each step by Lightning and by a plain loop.

    The first `LEFT_OUT` steps do not count.
    """
    with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(io.StringIO()):
        args = ["fit", f"--config={CONFIGS / config}.yaml", f"--runs_dir={runs}", "--model.coords=xyr"]
        args += ["--data.source=cifar10"]  # in memory: `RandomPictures` makes the images
        args += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.max_epochs=1"]
        args += [f"--model={class_path(task)}", f"--trainer.limit_train_batches={steps}"]
        callbacks = (ClassificationPictures, ClassificationPredictionWriter, PlainLoop)
        run("classification", Classifier, RandomPictures, args, callbacks=callbacks)
    return PlainLoop.times[LEFT_OUT:]

"""Training and evaluation of a classifier of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.data import ClassificationData
from classification.deploy import DeployedClassifier
from classification.metrics import ClassificationMetrics, Report
from classification.models import build_classifier
from classification.recipe import ALLOWED, OptimizerName, make_optimizer, make_scheduler, scaled_lr
from classification.transforms import IMAGENET_MEAN, IMAGENET_STD
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule, check_schedule
from coordconv_apps.training.task import Task
from coordconv_apps.training.weight_averaging import Averaging
from coordconv_apps.utils.argument_checks import check_ranges

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from classification.datasets import ImageBatch, LabelledBatch
    from coordconv_apps.utils.argument_checks import Allowed

CLASS_NAMES_KEY = "class_names"

_ALLOWED: dict[str, Allowed] = {
    **ALLOWED,
    "num_classes": (lambda value: value >= 2, "an integer of at least 2"),
    "label_smoothing": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "average": (lambda value: 0 <= value < 1, "in [0, 1)"),
}


class Prediction(NamedTuple):
    """What the network sees in a batch of the user's own pictures.

    Attributes:
        probabilities: float32 ``(B, num_classes)``; each row adds up to 1.
        indices: int64 ``(B,)``: the number of each picture, from 0.
        paths: The file of each.
    """

    probabilities: Tensor
    indices: Tensor
    paths: list[str]


class ClassificationTask(Task):
    """A classifier by name, with or without coordinates (Liu et al., 2018, section 5).

    Args:
        coords: Coordinates that the chosen layers see: "none" is the plain-convolution baseline, "xy", or "xyr" with
            the distance from the centre, as in the paper.
        network: One of torchvision's classifiers by name, or "timm/<name>" for one of timm's, if that is installed.
        num_classes: Classes to tell apart: those of the data.
        where: Layers that see coordinates: "stem" is the paper's extra 1x1 convolution of 8 channels ahead of the
            network (without coordinates there as well with coords=none); "first", "all" or a regular expression are
            convolutions of the network, whose outputs are at first those without coordinates.
        weights: What to start from: a file, "default" or another name of the network's weights in torchvision, which
            are downloaded; null: random. The last layer is new if they are of another number of classes.
        small_images: A first convolution of 3x3 and no pooling after it, for a ResNet at 32 x 32 pixels.
        network_args: Keyword arguments for the library's builder of the network, e.g. {dropout: 0.2}.
        label_smoothing: Share of the targets, in [0, 1), that is spread evenly over the classes.
        optimizer: Update rule, "sgd" or "adamw". Biases and norms do not decay.
        lr: Peak learning rate, above 0: of a global batch of 256 with scale_lr, else as it is.
        scale_lr: Whether the rate grows with the global batch: lr * batch size * processes * accumulated batches / 256
            (Goyal et al., 2017).
        weight_decay: At least 0: added to the gradient by "sgd", decoupled in "adamw".
        momentum: Of "sgd", in [0, 1).
        nesterov: Whether "sgd" looks ahead by its momentum.
        betas: Of "adamw", two numbers in [0, 1).
        schedule: Learning rate over the training: "cosine" to zero, or "constant".
        warmup: Share of the training, in [0, 1), over which the rate climbs linearly to its peak.
        average: Decay of the averaged weights, by step, that are evaluated and used; null: the last weights.
        channels_last: Whether images and weights lie in memory with their channels last, which most machines convolve
            faster.
        compile: Whether to compile the network for training and evaluation.

    Attributes:
        class_names: Of the data that it was trained on; None before that.
        shown: What the last evaluation found; None before the first one.
        shown_part: What that evaluation was of.

    Raises:
        ValueError: If an argument is out of range or does not go with the others.
    """

    image_size: Tensor
    mean: Tensor
    std: Tensor

    monitor: ClassVar[str] = "val/accuracy"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "scale_lr", "weight_decay", "momentum", "betas", "schedule", "warmup", "label_smoothing"}
        | {"channels_last", "compile", "weights"}
    )
    initial_weight_args: ClassVar[frozenset[str]] = frozenset({"weights"})

    def __init__(
        self,
        coords: Coords = "none",
        network: str = "resnet50",
        num_classes: int = 1000,
        where: str = "stem",
        weights: str | None = None,
        small_images: bool = False,
        network_args: dict[str, bool | int | float | str] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerName = "sgd",
        lr: float = 0.1,
        scale_lr: bool = True,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        nesterov: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Schedule = "cosine",
        warmup: float = 0.0,
        average: float | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__(coords)
        self.save_hyperparameters(ignore="weights")  # to open a checkpoint must not need their file
        check_ranges(self.hparams, _ALLOWED)
        check_schedule(warmup, [], 0.1)
        if schedule == "step":
            raise ValueError("model.schedule=step: must be cosine or constant")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.optimizer, self.lr, self.scale_lr, self.weight_decay = optimizer, lr, scale_lr, weight_decay
        self.momentum, self.nesterov, self.betas = momentum, nesterov, betas
        self.schedule, self.warmup, self.average = schedule, warmup, average
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._compile = compile
        self.network = build_classifier(
            network,
            num_classes=num_classes,
            coords=coords,
            where=where,
            weights=weights,
            small_images=small_images,
            network_args=network_args,
        ).to(memory_format=self.memory_format)
        # What the data have; exported networks are made for it.
        self.register_buffer("image_size", torch.tensor(224))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))
        self.class_names: list[str] | None = None
        self.val_metrics, self.test_metrics = ClassificationMetrics(num_classes), ClassificationMetrics(num_classes)
        self.shown: Report | None = None
        self.shown_part: Literal["val", "test"] = "val"

    def configure_callbacks(self) -> list[Callback]:
        """The averaging of the weights, if asked for."""
        return [] if self.average is None else [Averaging(self.average)]

    def setup(self, stage: str) -> None:
        """Learns from the data what the classes are and what images look like.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: The data have another number of classes than the network.
        """
        if self._compile:
            self.network.compile()
        if stage == "predict":
            return
        data = self._data()
        if data.num_classes != self.num_classes:
            raise ValueError(
                f"model.num_classes={self.num_classes}: must be {data.num_classes}, as many classes as the data have"
            )
        if stage == "fit":
            self.class_names = data.class_names
            self.image_size.fill_(data.eval_size)
            self.mean.copy_(torch.tensor(data.mean))
            self.std.copy_(torch.tensor(data.std))

    def _data(self) -> ClassificationData:
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set by the trainer
        if not isinstance(data, ClassificationData):
            raise TypeError(f"{type(data).__name__} is not the data of classification")
        return data

    # ------------------------------------------------------------------ steps

    def forward(self, images: Tensor) -> Tensor:
        """The network: normalised images ``(B, 3, H, W)`` to logits ``(B, num_classes)``."""
        logits: Tensor = self.network(images.contiguous(memory_format=self.memory_format))
        return logits

    def _step(self, batch: LabelledBatch, metrics: ClassificationMetrics) -> None:
        if len(batch.images):  # else no picture of the batch can be read
            metrics.update(self(batch.images), batch.labels, batch.indices)

    def _log(self, stage: Literal["val", "test"], metrics: ClassificationMetrics) -> None:
        values = {f"{stage}/{name}": value.to(self.device) for name, value in metrics.compute().items()}
        # Every process holds the figures of all of them; the mean of equal numbers changes nothing.
        self.log_dict(values, sync_dist=True)
        self.shown, self.shown_part = metrics.report, stage
        metrics.reset()
        self._note_bad_images()

    def on_train_epoch_end(self) -> None:
        """Notes pictures that could not be read, also without a validation."""
        super().on_train_epoch_end()
        self._note_bad_images()

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """Loss of a batch.

        Args:
            batch: Images with their classes; mixed here, if the data ask for that.
            batch_idx: The number of the batch in the epoch.

        Returns:
            The mean cross-entropy, a scalar.
        """
        images, targets = self._data().mix_batch(batch, self.current_epoch, batch_idx)
        loss = F.cross_entropy(self(images), targets, label_smoothing=self.label_smoothing)
        self.log_train({"train/loss": loss.detach()}, len(images))
        return loss

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Adds a batch to the validation figures.

        Args:
            batch: Images with their classes.
            batch_idx: Not used.
        """
        self._step(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures."""
        self._log("val", self.val_metrics)

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Adds a batch to the test figures.

        Args:
            batch: Images with their classes.
            batch_idx: Not used.
        """
        self._step(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs the test figures."""
        self._log("test", self.test_metrics)

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> Prediction:
        """Classifies pictures.

        Args:
            batch: Pictures.
            batch_idx: Not used.
        """
        if not len(batch.images):
            return Prediction(torch.zeros(0, self.num_classes), batch.indices, batch.paths)
        return Prediction(self(batch.images).float().softmax(1).cpu(), batch.indices.cpu(), batch.paths)

    def on_predict_epoch_end(self) -> None:
        """Notes pictures that could not be read."""
        self._note_bad_images()

    def _note_bad_images(self) -> None:
        """Counts the pictures that could not be read, each once, whichever processes came across it."""
        data = self._data()
        if data.on_bad_image == "skip":
            gathered = [data.unreadable] * self.trainer.world_size
            if self.trainer.world_size > 1:
                torch.distributed.all_gather_object(gathered, data.unreadable)
            self.run_facts["bad_images"] = data.left_out + len(set().union(*gathered))

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the classes to a checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CLASS_NAMES_KEY] = self.class_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the names of the classes over.

        Raises:
            ValueError: The data have other classes.
        """
        super().on_load_checkpoint(checkpoint)
        known: list[str] | None = checkpoint.get(CLASS_NAMES_KEY)
        # What `setup` has found, or an evaluation is about to use.
        trainer = self._trainer
        found = None if trainer is None or trainer.predicting else self._data().class_names
        if known is not None and found is not None and known != found:
            pairs = zip(known, found, strict=False)
            number, (old, new) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
            data = self._data()
            argument = f"root={str(data.root)!r}" if data.source in ("folder", "imagenet") else f"source={data.source}"
            raise ValueError(
                f"data.{argument}: its classes must be those of the checkpoint:"
                f" class {number} is {new!r} here and {old!r} there"
            )
        self.class_names = known

    # ------------------------------------------------------------------ export

    def export_module(self) -> nn.Module:
        """The network: images ``(B, 3, H, W)`` in [0, 1] in, probabilities ``(B, num_classes)`` out."""
        return DeployedClassifier(self.network, self.mean, self.std)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two images of the size that the network was evaluated at, ``(2, 3, H, W)`` in [0, 1]."""
        size = int(self.image_size)
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(2, 3, size, size, generator=generator).to(self.device),)

    # ------------------------------------------------------------------ optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the learning rate's schedule step by step."""
        trainer = self.trainer
        accumulate = trainer.accumulate_grad_batches
        lr, batch_size = self.lr, self._data().batch_size
        if self.scale_lr:
            lr = scaled_lr(lr, batch_size, trainer.world_size, accumulate)
        # Lightning does not clip the gradients of a fused optimizer in mixed precision.
        fused = not (trainer.gradient_clip_val and str(trainer.precision).endswith("mixed"))
        optimizer = make_optimizer(
            self.optimizer,
            self.network,
            lr,
            self.weight_decay,
            self.momentum,
            self.betas,
            nesterov=self.nesterov,
            fused=fused,
        )
        steps = trainer.estimated_stepping_batches
        self.run_facts["global_batch_size"] = batch_size * trainer.world_size * accumulate
        self.run_facts["peak_lr"] = lr
        self.run_facts["optimizer_steps"] = steps
        scheduler = make_scheduler(optimizer, steps, schedule=self.schedule, warmup=self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

"""The task of the classification application: an image classifier with or without coordinates."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor

from classification.data import ClassificationData
from classification.datasets import ImageBatch, LabelledBatch
from classification.export import ExportedClassifier
from classification.metrics import ClassificationMetrics, ClassificationReport
from classification.models import build_classifier
from classification.optimizers import ALLOWED, OptimizerName, make_optimizer, scaled_lr
from classification.transforms import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, normalize
from coordconv_apps.data.image_decoding import to_rgb
from coordconv_apps.data.image_inputs import ImageInputs, pil_images
from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.evaluation import EvaluatedTask
from coordconv_apps.training.optimizers import can_fuse, schedule_by_step
from coordconv_apps.training.schedules import lr_factor
from coordconv_apps.training.task import ExportInterface, Task
from coordconv_apps.training.trainer_access import attached_datamodule
from coordconv_apps.training.weight_averaging import Averaging
from coordconv_apps.utils.argument_checks import (
    BELOW_ONE,
    COUNT,
    TEXTS,
    Allowed,
    at_least,
    check_at_least,
    check_saved,
    one_of,
)

CLASS_NAMES_KEY, EVAL_RESIZE_KEY = "class_names", "eval_resize"


class Prediction(NamedTuple):
    """The class probabilities of a batch of images.

    Attributes:
        probabilities: float32 ``(B, num_classes)``; each row sums to 1.
        indices: int64 ``(B,)``: the index of each image, from 0.
        paths: The file of each.
    """

    probabilities: Tensor
    indices: Tensor
    paths: list[str]


class Classifier(EvaluatedTask[LabelledBatch, ClassificationMetrics]):
    """An image classifier of torchvision or timm, with or without coordinates (Liu et al., 2018, section 5).

    Args:
        coords: Coordinates that the chosen layers see: "none" is the plain-convolution baseline, "xy", or "xyr" with
            the distance from the centre, as in the paper.
        network: Name of one of torchvision's classifiers, or "timm/<name>" for one of timm's, if that is installed.
        num_classes: Number of classes; on the command line by default that of the data.
        where: Layers that see coordinates. "stem": the paper's extra 1x1 convolution with 8 channels before the
            network, which coords=none has too, without coordinates. "first", "all" or a regular expression:
            convolutions of the network, whose outputs are unchanged until training.
        weights: Initial weights: a file, or "default" or another name of the network's weights in torchvision, which
            are downloaded; null: random. The last layer is new if the number of classes differs.
        small_images: Replace a ResNet's first convolution by one of 3x3 and leave out the pooling after it, for images
            of about 32 x 32 pixels.
        network_args: Keyword arguments for the library's builder of the network, such as {dropout: 0.2}.
        label_smoothing: Fraction of the target, in [0, 1), that is spread evenly over the classes.
        optimizer: The optimizer, "sgd" or "adamw". Biases and norms have no weight decay.
        lr: Peak learning rate, above 0; with scale_lr, that for a global batch size of 256.
        scale_lr: Whether to scale the learning rate linearly with the global batch size (Goyal et al., 2017).
        weight_decay: Weight decay, at least 0: added to the gradient by "sgd", decoupled in "adamw".
        momentum: Momentum of "sgd", in [0, 1).
        nesterov: Whether "sgd" uses Nesterov momentum.
        betas: Decay rates of the running means of "adamw", two numbers in [0, 1).
        schedule: Learning rate schedule: "cosine" to zero, or "constant".
        warmup: Fraction of the training, in [0, 1), over which the learning rate rises linearly to its peak.
        average: Decay of the exponential moving average of the weights, per step, which evaluation and checkpoints then
            use; null uses the weights of the last step.
        channels_last: Whether to store images and weights in channels-last memory format, faster on most machines.
        compile: Whether to compile the network.

    Attributes:
        class_names: The classes of the training data; None before training.
        last_evaluation: Confusion matrix and worst examples of the last evaluation; None before the first one.
        evaluated_split: The split of that evaluation.

    Raises:
        ValueError: An argument is out of its range, there is no such network, layer or weights, or they do not fit.
    """

    monitor = "val/accuracy"
    monitor_mode = "max"
    changeable_args = Task.changeable_args | {
        *("scale_lr", "momentum", "betas", "schedule", "warmup", "label_smoothing"),
        *("channels_last", "compile", "weights"),
    }
    initial_weight_args = frozenset({"weights"})
    args_from_data = frozenset({"num_classes"})
    ranges: ClassVar[dict[str, Allowed]] = {
        **ALLOWED,
        "num_classes": at_least(2),
        "label_smoothing": BELOW_ONE,
        "schedule": one_of(Literal["cosine", "constant"]),
        "warmup": BELOW_ONE,
        "average": BELOW_ONE,
    }

    image_size: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        coords: Coords = "none",
        network: str = "resnet50",
        num_classes: int | None = None,
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
        schedule: Literal["cosine", "constant"] = "cosine",
        warmup: float = 0.0,
        average: float | None = None,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__(coords)
        if num_classes is None:
            raise ValueError("model.num_classes=null: must be the number of classes of the data")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
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
        # Properties of the training data, which forward and exported networks need.
        self.register_buffer("image_size", torch.tensor(224))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))
        self.class_names: list[str] | None = None
        self._eval_resize: int | None = None  # of the training data; None: no border is cut off
        self.val_metrics, self.test_metrics = ClassificationMetrics(num_classes), ClassificationMetrics(num_classes)
        self.last_evaluation: ClassificationReport | None = None
        self.evaluated_split: EvaluationSplit = "val"

    def configure_callbacks(self) -> list[Callback]:
        """Return the weight averaging, if ``average`` is given."""
        return [] if self.average is None else [Averaging(self.average)]

    def setup(self, stage: str) -> None:
        """Compile the network, and check the number of classes."""
        if self._compile:
            self.network.compile()
        if self.class_names is None:
            self._normalise_as(self.data)
        if stage == "predict":
            return
        data = self.data
        if data.num_classes != self.num_classes:
            raise ValueError(
                f"model.num_classes={self.num_classes}: must be {data.num_classes}, the number of classes of the data"
            )

    def on_fit_start(self) -> None:
        """Take class names, image size and normalisation from the data, also where a checkpoint has others."""
        super().on_fit_start()
        data = self.data
        self.class_names = data.class_names
        self.image_size.fill_(data.eval_size)
        self._eval_resize = data.eval_resize
        self._normalise_as(data)

    def _normalise_as(self, data: ClassificationData) -> None:
        self.mean.copy_(torch.tensor(data.mean))
        self.std.copy_(torch.tensor(data.std))

    @property
    def data(self) -> ClassificationData:
        """The trainer's data module."""
        return attached_datamodule(self.trainer, ClassificationData)

    # ------------------------------------------------------------------ steps

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, num_classes)`` of RGB images ``(B, 3, H, W)``, uint8 or floats in [0, 1]."""
        return self._logits(normalize(images, self.mean, self.std))

    def _logits(self, normalised: Tensor) -> Tensor:
        logits: Tensor = self.network(normalised.contiguous(memory_format=self.memory_format))
        return logits

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of a batch, which is mixed by MixUp or CutMix if the data ask for it."""
        normalised = normalize(batch.images, self.mean, self.std)
        images, targets = self.data.mix_batch(normalised, batch.labels, self.current_epoch, batch_idx)
        loss = F.cross_entropy(self._logits(images), targets, label_smoothing=self.label_smoothing)
        self.log_train({"train/loss": loss.detach()}, len(images))
        return loss

    def evaluation_step(self, batch: LabelledBatch, metrics: ClassificationMetrics, dataloader_idx: int) -> None:
        """Add a batch to the metrics of the validation or the test."""
        if len(batch.images):  # empty if all files of the batch are unreadable
            metrics.update(self(batch.images), batch.labels, batch.indices)

    def evaluation_metrics(self, metrics: ClassificationMetrics, split: EvaluationSplit) -> dict[str, Tensor]:
        """Compute the metrics of the validation or the test, and keep their report."""
        values = metrics.compute()
        self.last_evaluation, self.evaluated_split = metrics.report, split
        return values

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> Prediction:
        """Return the class probabilities of a batch."""
        if not len(batch.images):
            return Prediction(torch.zeros(0, self.num_classes), batch.indices, batch.paths)
        return Prediction(self(batch.images).float().softmax(1).cpu(), batch.indices.cpu(), batch.paths)

    def predict(self, images: ImageInputs, batch_size: int = 64) -> Tensor:
        """Return the class probabilities of images of any size, as the command ``predict`` computes them.

        Args:
            images: Images, see `coordconv_apps.data.image_inputs.ImageInputs`. They are resized and cropped as in the
                evaluations of the training.
            batch_size: Number of images to compute at once.

        Returns:
            float32 ``(N, num_classes)`` on the CPU; column ``i`` belongs to ``class_names[i]``.

        Raises:
            ValueError: ``batch_size`` is below 1, or an image is none of these.

        Example:
            >>> classifier = Classifier(network="mobilenet_v2", num_classes=3)  # or .load_from_checkpoint(path)
            >>> classifier.predict(torch.rand(2, 3, 48, 64)).shape
            torch.Size([2, 3])
        """
        check_at_least(1, batch_size=batch_size)
        size = int(self.image_size)
        transform = EvalTransform(size, self._eval_resize or size)
        cropped = [transform(pil_to_tensor(to_rgb(image))) for image in pil_images(images)]
        found = [torch.zeros(0, self.num_classes)]
        with self.inference():
            for start in range(0, len(cropped), batch_size):
                batch = torch.stack(cropped[start : start + batch_size]).to(self.device)
                found.append(self(batch).float().softmax(1).cpu())
        return torch.cat(found)

    # ------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the class names, and the size before the crop."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {CLASS_NAMES_KEY: self.class_names, EVAL_RESIZE_KEY: self._eval_resize}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the class names; raise `ValueError` if the data have other classes, or these are no names."""
        super().on_load_checkpoint(checkpoint)
        check_saved(checkpoint, {CLASS_NAMES_KEY: TEXTS, EVAL_RESIZE_KEY: COUNT})
        self.class_names = known = checkpoint.get(CLASS_NAMES_KEY)
        self._eval_resize = checkpoint.get(EVAL_RESIZE_KEY)
        if known is None or self._trainer is None:
            return
        if "run" not in checkpoint and self._trainer.state.fn != TrainerFn.FITTING:
            self._check_eval_size(checkpoint["state_dict"])
        if self._trainer.predicting:  # only the data of training and evaluation have classes
            return
        data = self.data
        for number, (old, new) in enumerate(zip(known, data.class_names, strict=False)):
            if old != new:
                where = f"root={str(data.root)!r}" if data.source in ("folder", "imagenet") else f"source={data.source}"
                raise ValueError(
                    f"data.{where}: its classes must be those of the checkpoint:"
                    f" class {number} is {new!r} here and {old!r} there"
                )

    def _check_eval_size(self, state: dict[str, Tensor]) -> None:
        """Warn of another size than the training's: a plain Lightning trainer saves no arguments of the data."""
        data = self.data
        size = int(state.get("image_size", self.image_size))
        resize = self._eval_resize or size
        if (data.eval_size, data.eval_resize) != (size, resize):
            warnings.warn(
                f"data.eval_size={data.eval_size}, data.eval_resize={data.eval_resize}: the training of the checkpoint"
                f" had data.eval_size={size}, data.eval_resize={resize}; pass these unless you want another size",
                stacklevel=2,
            )

    # ------------------------------------------------------------------ export

    def export_module(self) -> nn.Module:
        """Return a module from images ``(B, 3, H, W)`` in [0, 1] to probabilities ``(B, num_classes)``."""
        return ExportedClassifier(self.network, self.mean, self.std)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface(
            inputs={"images": "RGB images in [0, 1], of this size; the network contains the normalisation"},
            outputs={"probabilities": "probability of each class; each row sums to 1"},
            class_names=dict(enumerate(self.class_names or ())),
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two images of the size that the network was evaluated at, ``(2, 3, H, W)`` in [0, 1]."""
        shape, generator = (2, 3, int(self.image_size), int(self.image_size)), torch.Generator().manual_seed(0)
        return (torch.rand(shape, generator=generator).to(self.device),)

    # ------------------------------------------------------------------ optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and the learning rate schedule."""
        trainer = self.trainer
        accumulate = trainer.accumulate_grad_batches
        data = self.data
        samples = data.num_samples("train") * data.repeats
        global_batch_size = min(data.batch_size * trainer.world_size * accumulate, samples)
        lr = scaled_lr(self.lr, global_batch_size) if self.scale_lr else self.lr
        fused = can_fuse(self, momentum=self.optimizer == "sgd")
        settings = (lr, self.weight_decay, self.momentum, self.betas)
        optimizer = make_optimizer(self.optimizer, self.network, *settings, nesterov=self.nesterov, fused=fused)
        steps = trainer.estimated_stepping_batches
        self.run_facts |= {"global_batch_size": global_batch_size, "peak_lr": lr, "optimizer_steps": steps}
        return schedule_by_step(optimizer, lr_factor(self.schedule, steps, warmup=self.warmup))

"""Base of the detection methods: evaluation, prediction, optimizer and schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchvision.transforms.v2.functional import pil_to_tensor

from coordconv_apps.data.image_decoding import to_rgb
from coordconv_apps.data.image_inputs import ImageInputs, pil_images
from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.evaluation import EvaluatedTask
from coordconv_apps.training.optimizers import can_fuse, schedule_by_step
from coordconv_apps.training.schedules import SCHEDULE_RANGES, task_lr_factor
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.argument_checks import (
    BELOW_ONE,
    COUNT,
    INTS,
    NON_NEGATIVE,
    POSITIVE,
    TEXTS,
    Allowed,
    check_saved,
    one_of,
)
from detection.base_data_module import DetectionDataModule
from detection.batches import DetectionBatch, ImageBatch, Images
from detection.boxes import Detections, Found, clip_detections
from detection.datasets import to_unit
from detection.gray_images import Ink, bright_ink, network_input, to_gray
from detection.metrics import EvaluationMetrics

OptimizerName = Literal["adam", "adamw", "sgd"]
CLASS_NAMES_KEY, CATEGORY_IDS_KEY, CHANNELS_KEY = "class_names", "category_ids", "image_channels"


class DetectionTask(EvaluatedTask[DetectionBatch, EvaluationMetrics], ABC):
    """Base class of the detection tasks: evaluation, prediction, optimizer and learning-rate schedule.

    A subclass has all arguments that this class reads from ``self.hparams``, ``optimizer`` to ``lr_gamma``. It builds
    ``network``, ``val_metrics`` and ``test_metrics``, and implements `losses`, `find`, `legend` and `captions`.

    Args:
        coords: Coordinates that the network sees.
    """

    canvas_size: Tensor
    network: nn.Module
    input_channels: tuple[int, ...] = (1,)  # of images that the network takes

    precisions: ClassVar[tuple[str, ...]] = ("32-true", "16-mixed", "bf16-mixed")  # boxes need float32
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "momentum", "beta2", "weight_decay", "schedule", "warmup", "lr_milestones", "lr_gamma"}
    )
    ranges: ClassVar[dict[str, Allowed]] = {
        "lr": POSITIVE,
        "momentum": BELOW_ONE,
        "beta2": BELOW_ONE,
        "weight_decay": NON_NEGATIVE,
        "optimizer": one_of(OptimizerName),
        **SCHEDULE_RANGES,
    }

    def __init__(self, coords: Coords) -> None:
        super().__init__(coords)
        # Height and width of the training canvases; exported networks are made for this size.
        self.register_buffer("canvas_size", torch.tensor([64, 64]))
        # Of the training data, from label 1: so a checkpoint predicts without them.
        self.class_names: tuple[str, ...] = ()
        self.category_ids: tuple[int, ...] = ()
        self.image_channels = 1

    def setup(self, stage: str) -> None:
        """Check the images' channels; store the size of the training canvases, and the names of the classes."""
        data = self.attached_data()
        if data is None:
            return
        if data.channels not in self.input_channels:
            own = f"model.network={self.hparams['network']}:" if "network" in self.hparams else type(self).__name__
            raise ValueError(
                f"{own} takes gray canvases, and data.source=coco has photographs; choose one of torchvision's"
                " detectors, such as --model=FasterRCNN --model.network=fasterrcnn_mobilenet_v3_large_320_fpn"
            )
        if stage == "fit":
            self._store_classes(data)
            self.image_channels = data.channels
            if data.image_size is not None:
                self.canvas_size.fill_(data.image_size)

    def _store_classes(self, data: DetectionDataModule) -> None:
        self.class_names = tuple(self.category_names(data.class_names))
        self.category_ids = data.category_ids[: len(self.class_names)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the names and numbers of the classes, and the channels of the images."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHANNELS_KEY] = self.image_channels
        checkpoint[CLASS_NAMES_KEY], checkpoint[CATEGORY_IDS_KEY] = self.class_names, self.category_ids

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the names and numbers of the classes, and the channels of the images.

        Raises:
            ValueError: The entries have other types, or the data to train or evaluate on have other classes.
        """
        super().on_load_checkpoint(checkpoint)
        check_saved(checkpoint, {CLASS_NAMES_KEY: TEXTS, CATEGORY_IDS_KEY: INTS, CHANNELS_KEY: COUNT})
        self.image_channels = checkpoint.get(CHANNELS_KEY, self.image_channels)
        self.class_names = tuple(checkpoint.get(CLASS_NAMES_KEY) or ())
        self.category_ids = tuple(checkpoint.get(CATEGORY_IDS_KEY) or range(1, len(self.class_names) + 1))
        if len(self.category_ids) != len(self.class_names):
            number = len(self.class_names)
            raise ValueError(
                f"checkpoint.{CATEGORY_IDS_KEY}={self.category_ids}: must be one for each of {number} classes"
            )
        if self._trainer is None or self.trainer.predicting or (data := self.attached_data()) is None:
            return
        pairs = zip(self.class_names, self.category_names(data.class_names), strict=False)
        for label, (old, new) in enumerate(pairs, start=1):
            if old != new:
                raise ValueError(
                    f"data: its classes must be those of the checkpoint: label {label} is {new!r} here and {old!r}"
                    " there"
                )

    def attached_data(self) -> DetectionDataModule | None:
        """Return the trainer's data module, or None if it has another class: the task works with any batches."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, DetectionDataModule) else None

    # ------------------------------------------------------------- methods of a subclass

    @abstractmethod
    def losses(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return the parts of the training loss by name, scalars whose sum is minimised."""

    @abstractmethod
    def find(self, images: Images) -> Found:
        """Find objects in images ``(B, C, H, W)``, or ``(C, H, W)`` each, in [0, 1], in evaluation mode."""

    def kept(self, detections: Detections) -> Detections:
        """Return the detections of an image to draw and predict: all of them by default."""
        return detections

    @property
    @abstractmethod
    def legend(self) -> str:
        """Description of the boxes that `kept` returns, for the legend of a picture."""

    def category_names(self, class_names: Sequence[str]) -> Sequence[str]:
        """Return the name of each label, given the names of the data's classes."""
        return class_names

    @abstractmethod
    def captions(self, detections: Detections, class_names: Sequence[str]) -> list[str]:
        """Return the text beside each box in a picture; it may be empty."""

    # ------------------------------------------------------ train, validate, test, predict

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, a scalar."""
        loss = torch.stack(list(self.losses(batch).values())).sum()
        self.log_train({"train/loss": loss.detach()}, len(batch["images"]))
        return loss

    def evaluation_step(self, batch: DetectionBatch, metrics: EvaluationMetrics, dataloader_idx: int) -> None:
        """Find the objects of a batch and add them to the metrics."""
        if len(batch["images"]):  # no image of the batch may be readable
            metrics.update(self.find(batch["images"]), batch["targets"])

    def evaluation_metrics(self, metrics: EvaluationMetrics, split: EvaluationSplit) -> dict[str, Tensor]:
        """Compute the metrics of an evaluation over all processes."""
        return metrics.compute()

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> list[Detections]:
        """Return the kept detections of each image, found one by one: the images may have any size."""
        return [self.kept(self.find(image[None]).detections[0]) for image in batch["images"]]

    def predict(self, images: ImageInputs, ink: Ink = "auto") -> list[Detections]:
        """Find objects in images of any size, as the command ``predict`` does.

        Args:
            images: Images, see `coordconv_apps.data.image_inputs.ImageInputs`.
            ink: Whether the ink is bright or dark, for a network that was trained on canvases; "auto" decides by the
                border of each image. Networks for photographs ignore it.

        Returns:
            The detections of each image, on the CPU, in pixels of the image; label ``i`` is ``class_names[i - 1]``.

        Raises:
            ValueError: ``ink`` or an image is none of these.

        Example:
            >>> from detection import FasterRCNN
            >>> detector = FasterRCNN(num_classes=10)  # or FasterRCNN.load_from_checkpoint(path)
            >>> [sorted(found) for found in detector.predict(torch.zeros(2, 1, 48, 64))]
            [['boxes', 'labels', 'scores'], ['boxes', 'labels', 'scores']]
        """
        allowed, words = one_of(Ink)
        if not allowed(ink):
            raise ValueError(f"ink={ink}: must be {words}")
        results = []
        with self.inference():
            for image in pil_images(images):
                if self.image_channels == 1:
                    inputs = network_input(bright_ink(to_gray(image), ink))
                else:
                    inputs = to_unit(pil_to_tensor(to_rgb(image)))
                found = self.kept(self.find(inputs[None].to(self.device)).detections[0])
                on_cpu: Detections = {k: v.cpu() for k, v in found.items()}  # type: ignore[assignment,attr-defined]
                results.append(clip_detections(on_cpu, *image.size))
        return results

    def on_predict_start(self) -> None:
        """Take the class names from the data if no checkpoint brought them."""
        if not self.class_names and (data := self.attached_data()) is not None:
            self._store_classes(data)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface(
            inputs={"images": "gray canvases in [0, 1], of this size; 0 is the background"},
            outputs={
                "boxes": "x1, y1, x2, y2 in pixels",
                "scores": "in [0, 1], best first; 0 in unused places at the end",
                "labels": "numbers of the classes, from 1; 0 in unused places at the end",
            },
            class_names=dict(enumerate(self.class_names, start=1)),
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two canvases ``(2, 1, H, W)`` in [0, 1], of the size that the network was trained on."""
        height, width = self.canvas_size.tolist()
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(2, 1, height, width, generator=generator).to(self.device),)

    # ------------------------------------------------------------------------ optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer, and the learning rate schedule that is applied after every step."""
        args = self.hparams
        # Half a millisecond less per step.
        fused = self.device.type == "cpu" and can_fuse(self, momentum=args["optimizer"] == "sgd")
        shared: dict[str, Any] = {"lr": args["lr"], "weight_decay": args["weight_decay"], "fused": fused}
        parameters = self.network.parameters()
        optimizer: torch.optim.Optimizer
        if args["optimizer"] == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=args["momentum"], **shared)
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[args["optimizer"]]
            optimizer = kind(parameters, betas=(args["momentum"], args["beta2"]), **shared)
        return schedule_by_step(optimizer, task_lr_factor(args, self.trainer.estimated_stepping_batches))

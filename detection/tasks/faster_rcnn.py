"""Faster R-CNN, and any other torchvision detector, trained as torchvision trains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import FRACTION, POSITIVE_INT, Allowed, one_of
from detection.batches import DetectionBatch, Images
from detection.boxes import Detections, Found, select
from detection.export import ExportableDetector
from detection.metrics import DetectionMetrics
from detection.models.coord_layers import CoordInit, add_coords
from detection.models.detectors import as_input, build_detector, detect
from detection.models.image_coords import image_coords
from detection.models.paper_faster_rcnn import Padding, PaperFasterRCNN
from detection.models.pretrained import load_pretrained
from detection.tasks.base import DetectionTask, OptimizerName


class FasterRCNN(DetectionTask):
    """Train a whole detector, Faster R-CNN by default, with or without coordinates (Liu et al., 2018, section 5).

    Losses, matching and sampling are torchvision's.

    Args:
        coords: Coordinates that the chosen layers see: "none" is the plain-convolution baseline, "xy", or "xyr" with
            the distance from the centre.
        network: "paper" is the paper's small network with a second stage. Any other value is the name of a torchvision
            detection network, such as "fasterrcnn_resnet50_fpn", built without downloads.
        num_classes: Number of classes, background not counted; on the command line by default that of the data.
        padding: Padding of the paper network's 5x5 layers: "same" pads with zeros, "valid" does not pad.
        coord_layers: Layers that get coordinates: "paper" (those that the paper names; the first layer of a torchvision
            network), "first", "all", "fpn_and_head" (the 1x1 convolutions of the feature pyramid and the first
            convolution of the head, as in PP-YOLO; torchvision networks), or a regular expression on layer names.
        coord_init: Initial coordinate weights: "random" as in the paper, or "zero".
        network_args: Keyword arguments of torchvision's builder, such as {min_size: 128}, for networks other than
            "paper". With trained weights, all networks but SSD need {trainable_backbone_layers: 3}, which freezes the
            other layers of the backbone as torchvision does.
        weights: Trained weights to start from: a file, or "DEFAULT" or another name of the network's weights in
            torchvision, which are downloaded once. The last layers are new if the number of classes differs.
        weights_backbone: The same for the backbone alone, such as "IMAGENET1K_V1" or a file of a ResNet-50.
        max_detections: Largest number of detections in an image; null: 20 with network=paper, torchvision's number,
            such as 100, with others. COCO's metrics count at most 100, or this number if it is larger.
        score_threshold: Lowest score of detections that are drawn, predicted, and counted by iou and recall_iou, in
            [0, 1]. COCO's metrics use all detections.
        optimizer: Optimizer: "adam", "adamw" or "sgd".
        lr: Peak learning rate, above 0.
        momentum: Momentum of SGD, or beta1 of Adam, in [0, 1).
        beta2: Decay of Adam's second moment, in [0, 1).
        weight_decay: L2 penalty of "adam" and "sgd", decoupled weight decay of "adamw".
        schedule: Learning rate schedule: "constant", "cosine" to zero, or "step" by ``lr_gamma`` at each of
            ``lr_milestones``.
        warmup: Fraction of the training, in [0, 1), over which the learning rate rises linearly to its peak.
        lr_milestones: Fractions of the training, in (0, 1), at which "step" multiplies the learning rate.
        lr_gamma: Factor of the learning rate at each of lr_milestones, with "step", in (0, 1].

    Raises:
        ValueError: An argument is out of its range, there is no such network, layer or weights, or they do not fit.
    """

    val_metrics: DetectionMetrics
    monitor: ClassVar[str] = "val/map"
    epoch_line: ClassVar[tuple[str, ...]] = (  # without COCO's figures by size and by number of detections
        "train/loss",
        *(f"val/{name}" for name in ("iou", "iou_proposals", "map", "map_50", "map_75", "recall_iou")),
    )
    args_from_data: ClassVar[frozenset[str]] = frozenset({"num_classes"})
    changeable_args: ClassVar[frozenset[str]] = DetectionTask.changeable_args | {"score_threshold"}
    initial_weight_args: ClassVar[frozenset[str]] = frozenset({"weights", "weights_backbone"})
    ranges: ClassVar[dict[str, Allowed]] = DetectionTask.ranges | {
        "score_threshold": FRACTION,
        "num_classes": POSITIVE_INT,
        "max_detections": POSITIVE_INT,
        "padding": one_of(Padding),
        "coord_init": one_of(CoordInit),
    }

    def __init__(
        self,
        coords: Coords = "none",
        network: str = "paper",
        num_classes: int | None = None,
        padding: Padding = "same",
        coord_layers: str = "paper",
        coord_init: CoordInit = "random",
        network_args: dict[str, int | float] | None = None,
        weights: str | None = None,
        weights_backbone: str | None = None,
        max_detections: int | None = None,
        score_threshold: float = 0.5,
        optimizer: OptimizerName = "adam",
        lr: float = 0.001,
        momentum: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
    ) -> None:
        super().__init__(coords)
        if num_classes is None:
            raise ValueError("model.num_classes=null: must be the number of classes of the data")
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.network = build_detector(
            network,
            num_classes=num_classes,
            padding=padding,
            network_args=network_args,
            max_detections=max_detections,
        )
        self.input_channels = (1,) if network == "paper" else (1, 3)
        self.image_channels = self.input_channels[-1]  # until a training: pretrained networks know photographs
        add_coords(self.network, coords, coord_layers, coord_init)
        if weights is not None or weights_backbone is not None:
            self._load_weights(network, weights, weights_backbone, network_args or {})
        self.network.to(memory_format=torch.channels_last)  # in which CPUs and GPUs convolve fastest
        self.val_metrics, self.test_metrics = (
            DetectionMetrics(
                proposals=hasattr(self.network, "rpn"),
                score_threshold=score_threshold,
                max_detections=max(100, max_detections or 0),
                by_size=network != "paper",
            )
            for _ in range(2)
        )

    def _load_weights(self, name: str, weights: str | None, backbone: str | None, args: dict[str, int | float]) -> None:
        given = "weights" if weights is not None else "weights_backbone"
        if isinstance(self.network, PaperFasterRCNN):
            raise ValueError(f"{given}: network='paper' has no trained weights; must be null")
        if not isinstance(self.network, SSD) and "trainable_backbone_layers" not in args:
            raise ValueError(
                f"model.{given}: trained weights need model.network_args.trainable_backbone_layers: 3 freezes the"
                " others, as torchvision does"
            )
        load_pretrained(self.network, name, weights, backbone)

    def setup(self, stage: str) -> None:
        """Check that the network suits the data: its number of classes, and the number of detections of an image."""
        super().setup(stage)
        data = self.attached_data()
        if data is not None and stage != "predict":
            if data.num_classes != self.num_classes:
                raise ValueError(f"num_classes={self.num_classes}: the data have {data.num_classes} classes")
            most = data.most_objects("test" if stage == "test" else "val")
            heads: Any = getattr(self.network, "roi_heads", self.network)
            limit = self.val_metrics.average_precision.max_detection_thresholds[-1]
            limit = min(getattr(heads, "detections_per_img", limit), limit)  # a network of your own may lack it
            if most > limit:
                warnings.warn(
                    f"model.max_detections={limit}: an image has {most} objects; raise it to {most} to find them all",
                    stacklevel=2,
                )

    def losses(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return torchvision's losses of a batch by name, scalars."""
        with image_coords(self.network):
            losses: dict[str, Tensor] = self.network(as_input(self.network, batch["images"]), batch["targets"])
        return losses

    def find(self, images: Images) -> Found:
        """Find objects in images ``(B, C, H, W)``, or ``(C, H, W)`` each, in [0, 1], in evaluation mode."""
        return detect(self.network, images)

    def kept(self, detections: Detections) -> Detections:
        """Return the detections of an image with a score of at least ``score_threshold``."""
        return select(detections, detections["scores"] >= self.score_threshold)

    @property
    def legend(self) -> str:
        """Description of the found boxes, for the legend of a picture."""
        return f"found: class and score (from {self.score_threshold:g})"

    def captions(self, detections: Detections, class_names: Sequence[str]) -> list[str]:
        """Return class and score of each detection."""
        scored = zip(detections["labels"].tolist(), detections["scores"].tolist(), strict=True)
        # Names come from the data and labels from the network: a checkpoint may have more classes than the data.
        return [f"{class_names[k - 1] if k <= len(class_names) else k} {score:.2f}" for k, score in scored]

    def export_module(self) -> nn.Module:
        """Return the paper's network with suppression, see `ExportableDetector`, for the size of the training canvases.

        Raises:
            ValueError: If the network is not the paper's.
        """
        if not isinstance(self.network, PaperFasterRCNN):
            raise ValueError(f"export: network={self.hparams['network']!r} is not supported, network='paper' is")
        height, width = self.canvas_size.tolist()
        return ExportableDetector(self.network, (height, width))

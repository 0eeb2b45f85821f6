"""The authors' own protocol: the paper's region proposal network alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import Allowed, one_of
from detection.batches import DetectionBatch, Images
from detection.boxes import MAX_PROPOSALS, Detections, Found, propose
from detection.export import ExportableProposals
from detection.losses import proposal_losses
from detection.metrics import ProposalMetrics
from detection.models.coord_layers import CoordInit, add_coords
from detection.models.detectors import one_tensor
from detection.models.paper_faster_rcnn import Padding, ProposalNetwork
from detection.tasks.base import DetectionTask, OptimizerName


class RegionProposals(DetectionTask):
    """Train the paper's region proposals alone, as the authors do, with or without coordinates (Liu et al., 2018).

    Proposals are matched with true boxes after the network moved them. Proposals have no class.

    Args:
        coords: Coordinates that the chosen layers see: "none" is the plain-convolution baseline, "xy", or "xyr" with
            the distance from the centre.
        padding: Padding of the 5x5 layers: "same" pads with zeros, "valid" does not pad.
        coord_layers: Layers that get coordinates: "paper" (those that the paper names), "first", "all", or a regular
            expression on layer names.
        coord_init: Initial coordinate weights: "random" as in the paper, or "zero".
        clip_moved: Whether to clip moved boxes to the canvas before they are matched and kept.
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
        ValueError: An argument is out of its range, or there is no such layer.
    """

    monitor: ClassVar[str] = "val/iou_proposals"
    ranges: ClassVar[dict[str, Allowed]] = DetectionTask.ranges | {
        "padding": one_of(Padding),
        "coord_init": one_of(CoordInit),
    }
    network: ProposalNetwork

    def __init__(
        self,
        coords: Coords = "none",
        padding: Padding = "same",
        coord_layers: str = "paper",
        coord_init: CoordInit = "random",
        clip_moved: bool = True,
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
        self.clip_moved = clip_moved
        self.network = ProposalNetwork(padding=padding)
        add_coords(self.network, coords, coord_layers, coord_init)
        self.network.to(memory_format=torch.channels_last)  # in which CPUs and GPUs convolve fastest
        self.val_metrics, self.test_metrics = ProposalMetrics(), ProposalMetrics()

    def losses(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return "box_loss" and "score_loss" of a batch, scalars."""
        images, truth = one_tensor(batch["images"]), [target["boxes"] for target in batch["targets"]]
        logits, deltas, anchors = self.network(images)
        height, width = images.shape[-2:]
        return proposal_losses(logits, deltas, anchors, truth, (height, width), clip_moved=self.clip_moved)

    def find(self, images: Images) -> Found:
        """Make the proposals of images ``(B, 1, H, W)`` in [0, 1], at most ten each, all with label 1."""
        images = one_tensor(images)
        logits, deltas, anchors = self.network(images)
        height, width = images.shape[-2:]
        found = propose(logits, deltas, anchors, (height, width), clip_moved=self.clip_moved)
        return Found(found, [result["boxes"] for result in found])

    @property
    def legend(self) -> str:
        """Description of the found boxes, for the legend of a picture."""
        return f"the {MAX_PROPOSALS} best proposals, with the highest score"

    def category_names(self, class_names: Sequence[str]) -> Sequence[str]:
        """Return ("object",): proposals have no class."""
        return ("object",)

    def captions(self, detections: Detections, class_names: Sequence[str]) -> list[str]:
        """Return the score of the best proposal alone: ten scores would cover the image."""
        scores = detections["scores"].tolist()
        return [f"{score:.2f}" if place == 0 else "" for place, score in enumerate(scores)]

    def export_module(self) -> nn.Module:
        """Return the network with suppression, see `ExportableProposals`, for the size of the training canvases."""
        height, width = self.canvas_size.tolist()
        return ExportableProposals(self.network, (height, width), clip_moved=self.clip_moved)

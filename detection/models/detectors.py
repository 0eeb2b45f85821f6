"""Detectors by name: the paper's Faster R-CNN, and torchvision's detection networks."""

from __future__ import annotations

import difflib
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms

from detection.batches import Images
from detection.boxes import MAX_PROPOSALS, NMS_IOU, Detections, Found
from detection.models.image_coords import image_coords
from detection.models.paper_faster_rcnn import Padding, PaperFasterRCNN
from detection.models.pretrained import freeze_backbone

_FAMILIES: dict[str, type[nn.Module]] = {"fasterrcnn": FasterRCNN, "fcos": FCOS, "retinanet": RetinaNet, "ssd": SSD}


def torchvision_detectors() -> list[str]:
    """Return the names of torchvision's detection networks that need only boxes to train.

    Example:
        >>> "fasterrcnn_resnet50_fpn" in torchvision_detectors()
        True
    """
    return [name for name in tv_models.list_models(module=tv_models.detection) if name.startswith(tuple(_FAMILIES))]


def build_detector(
    network: str = "paper",
    *,
    num_classes: int = 10,
    padding: Padding = "same",
    network_args: Mapping[str, int | float] | None = None,
    max_detections: int | None = None,
) -> nn.Module:
    """Build a detector of plain convolutions with torchvision's detection interface, without downloads.

    Args:
        network: "paper", for images of one channel, or the name of a torchvision network, for three.
        num_classes: Number of classes, background not counted.
        padding: Padding of the paper's backbone.
        network_args: Keyword arguments of torchvision's builder, such as ``min_size``. ``trainable_backbone_layers``
            freezes the other layers of the backbone, as torchvision does for trained weights.
        max_detections: Largest number of detections in an image; None for 20 with "paper", else torchvision's number.

    Raises:
        ValueError: If the name is unknown, or the network does not take an argument.

    Example:
        >>> type(build_detector("paper")).__name__
        'PaperFasterRCNN'
    """
    args = dict(network_args or {})
    if network == "paper":
        if args:
            raise ValueError(f"network_args={args!r} is for torchvision networks, not network='paper'")
        return PaperFasterRCNN(num_classes, padding=padding, max_detections=max_detections or 20)
    known = torchvision_detectors()
    if network not in known:
        close = difflib.get_close_matches(network, ["paper", *known], n=3, cutoff=0.4) or ["paper", *known]
        raise ValueError(f"network={network!r} is unknown; closest: {', '.join(close)}")
    builder = tv_models.get_model_builder(network)
    family = next(kind for name, kind in _FAMILIES.items() if network.startswith(name))
    # Torchvision passes unknown arguments on to a transform that ignores them.
    parameters = {**inspect.signature(builder).parameters, **inspect.signature(family).parameters}
    numeric = {name for name, parameter in parameters.items() if isinstance(parameter.default, int | float)}
    allowed = sorted(numeric - {"progress", "num_classes"} | {"trainable_backbone_layers"})
    if unknown := [name for name in args if name not in allowed]:
        raise ValueError(
            f"network_args={args!r}: {network} does not take {unknown[0]!r}; allowed: {', '.join(allowed)}"
        )
    trainable_layers = args.pop("trainable_backbone_layers", None)
    if max_detections is not None:
        args[next(name for name in ("box_detections_per_img", "detections_per_img") if name in allowed)] = (
            max_detections
        )
    built: nn.Module = builder(weights=None, weights_backbone=None, num_classes=num_classes + 1, **args)
    if trainable_layers is not None:
        freeze_backbone(built, network, trainable_layers)
    return built


@torch.no_grad()
def detect(network: nn.Module, images: Images) -> Found:
    """Run a detector from `build_detector`, in evaluation mode.

    Images of different sizes are not run together: torchvision would pad them to one size, and its features and anchors
    in and near this padding depend on the other images of the batch.

    Args:
        network: The detector.
        images: ``(B, C, H, W)``, or ``(C, H, W)`` each, in [0, 1]; see `as_input`.

    Returns:
        The final detections, and the best region proposals that the second stage received, in pixels.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    if len(set(sizes)) > 1:
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        parts = [
            detect(network, [images[i] for i in group]) for _, group in itertools.groupby(order, sizes.__getitem__)
        ]
        places = [order.index(i) for i in range(len(order))]
        found = [detections for part in parts for detections in part.detections]
        proposed = [boxes for part in parts for boxes in part.proposals or ()]
        return Found([found[i] for i in places], [proposed[i] for i in places] if proposed else None)
    proposals: list[Tensor] = []

    def remember(_: nn.Module, args: tuple[ImageList, Any], output: tuple[list[Tensor], Any]) -> None:
        inner_sizes = args[0].image_sizes
        for boxes, (height, width), (inner_height, inner_width) in zip(output[0], sizes, inner_sizes, strict=True):
            if (inner_height, inner_width) != (height, width):
                boxes = boxes * boxes.new_tensor((width / inner_width, height / inner_height) * 2)
            # They are sorted by score, best first.
            order = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
            proposals.append(boxes[nms(boxes, order, NMS_IOU)[:MAX_PROPOSALS]])

    rpn = getattr(network, "rpn", None)
    handle = None if rpn is None else rpn.register_forward_hook(remember)
    try:
        with image_coords(network):
            detections: list[Detections] = network(as_input(network, images))
    finally:
        if handle is not None:
            handle.remove()
    return Found(detections, None if rpn is None else proposals)


def as_input(network: nn.Module, images: Images) -> Images:
    """Convert images to a detector's input: for torchvision's, a list ``(3, H, W)`` each, gray ones repeated."""
    if isinstance(network, PaperFasterRCNN):
        return one_tensor(images)
    return [image.expand(3, -1, -1) for image in images]


def one_tensor(images: Images) -> Tensor:
    """Return images of one size as one tensor ``(B, C, H, W)``, in the memory format of the paper's networks."""
    stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
    return stacked.contiguous(memory_format=torch.channels_last)

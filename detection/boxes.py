"""Arithmetic and selection of boxes in batches. Boxes are ``(x1, y1, x2, y2)`` in pixels throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

MAX_LOG_SCALE = math.log(1000 / 16)
"""Upper limit of ``dw`` and ``dh``, torchvision's: exp() must not overflow early in training."""

NMS_IOU = 0.8
"""Non-maximum suppression drops proposals whose IoU with a better one is larger (the paper's test setting)."""

MAX_PROPOSALS = 10
"""Proposals kept per image (the paper's test setting)."""


class Detections(TypedDict):
    """Objects found in one image, best first.

    Attributes:
        boxes: float32 ``(n, 4)``, in pixels; n may be 0.
        scores: float32 ``(n,)``, in [0, 1].
        labels: int64 ``(n,)``, class numbers from 1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Found(NamedTuple):
    """The detections of each image of a batch, and its kept proposals ``(m, 4)``; None for a network without any."""

    detections: list[Detections]
    proposals: list[Tensor] | None


def select(detections: Detections, chosen: Tensor) -> Detections:
    """Return some of the detections of an image, chosen by a mask ``(n,)`` or by indices.

    Example:
        >>> found = Detections(
        ...     boxes=torch.eye(2, 4), scores=torch.tensor([0.9, 0.2]), labels=torch.tensor([3, 1])
        ... )
        >>> select(found, found["scores"] >= 0.5)["labels"]
        tensor([3])
    """
    return {
        "boxes": detections["boxes"][chosen],
        "scores": detections["scores"][chosen],
        "labels": detections["labels"][chosen],
    }


def clip_detections(detections: Detections, width: int, height: int) -> Detections:
    """Clip detections to an image and drop those outside: the network sees small images with padding."""
    boxes = clip_boxes_to_image(detections["boxes"], (height, width))
    clipped: Detections = {**detections, "boxes": boxes}
    return select(clipped, (boxes[:, 2:] > boxes[:, :2]).all(1))


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Move anchors ``(..., N, 4)`` by deltas ``(..., N, 4)``: ``(dx, dy, dw, dh)``.

    Centres move by ``(dx, dy)`` times the anchor's size, sizes change by the factors ``(exp(dw), exp(dh))``.

    Example:
        >>> decode(torch.tensor([[0.5, 0.0, 0.0, 0.0]]), torch.tensor([[10.0, 10.0, 30.0, 20.0]]))
        tensor([[20., 10., 40., 20.]])
    """
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + size / 2 + deltas[..., :2] * size
    half = deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * size / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the deltas ``(..., 4)`` that move anchors ``(..., 4)`` onto boxes ``(..., 4)``: the inverse of `decode`.

    Example:
        >>> encode(torch.tensor([[20.0, 10.0, 40.0, 20.0]]), torch.tensor([[10.0, 10.0, 30.0, 20.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
    """
    size = anchors[..., 2:] - anchors[..., :2]
    box_size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + box_size / 2 - anchors[..., :2] - size / 2) / size
    return torch.cat((shift, (box_size / size).log()), dim=-1)


def pad_boxes(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack the boxes ``(n, 4)`` of several images; n may be 0.

    Returns:
        The boxes ``(B, G, 4)``, padded with zeros, and the mask ``(B, G)`` of those that are real; G is at least 1.

    Example:
        >>> padded, real = pad_boxes([torch.zeros(0, 4), torch.ones(2, 4)])
        >>> padded.shape, real.tolist()
        (torch.Size([2, 2, 4]), [[False, False], [True, True]])
    """
    counts = [len(b) for b in boxes]
    most = max(1, *counts)
    padded = torch.stack([F.pad(b, (0, 0, 0, most - n)) for b, n in zip(boxes, counts, strict=True)])
    device = padded.device
    return padded, torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]


def select_proposals(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the indices of the kept proposals among boxes ``(N, 4)`` with scores ``(N,)``, best first.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> select_proposals(boxes, torch.tensor([0.9, 0.8, 0.7]))
        tensor([0, 2])
    """
    # Suppression starts with the best scores, so that the few best boxes decide the outcome unless they all overlap.
    shortlist = scores.topk(min(16 * MAX_PROPOSALS, len(scores))).indices
    kept = shortlist[nms(boxes[shortlist], scores[shortlist], NMS_IOU)[:MAX_PROPOSALS]]
    if len(kept) < MAX_PROPOSALS and len(shortlist) < len(scores):
        kept = nms(boxes, scores, NMS_IOU)[:MAX_PROPOSALS]
    return kept


@torch.no_grad()
def propose(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], *, clip_moved: bool = True
) -> list[Detections]:
    """Make a batch's proposals with the paper's test settings: moved, clipped, suppressed at IoU 0.8, at most ten.

    Args:
        logits: Objectness ``(B, N)``.
        deltas: ``(B, N, 4)``.
        anchors: ``(N, 4)``.
        size: Height and width of the canvas in pixels.
        clip_moved: Whether to clip moved boxes to the canvas.

    Returns:
        Per image up to ten proposals, all with label 1. Boxes without area are dropped, as torchvision does.
    """
    moved = decode(deltas, anchors)
    if clip_moved:
        moved = clip_boxes_to_image(moved, size)
    result: list[Detections] = []
    for boxes, scores in zip(moved, logits.sigmoid(), strict=True):
        solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        if not solid.all():
            boxes, scores = boxes[solid], scores[solid]
        kept = select_proposals(boxes, scores)
        result.append({"boxes": boxes[kept], "scores": scores[kept], "labels": torch.ones_like(kept)})
    return result

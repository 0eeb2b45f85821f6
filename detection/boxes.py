"""Arithmetic of boxes in batches. Boxes are ``(x1, y1, x2, y2)`` in pixels throughout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LOG_SCALE = math.log(1000 / 16)
"""Limit on the logarithm of a change of size, torchvision's: exp() must not overflow early in training."""

NMS_IOU = 0.8
"""Proposals that overlap a better one by more than this are dropped (the paper's test setting)."""

MAX_PROPOSALS = 10
"""Proposals kept per image (the paper's test setting)."""


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Move anchors: centres by ``dx, dy`` times the anchor's size, sizes by ``exp(dw), exp(dh)``.

    Args:
        deltas: ``(..., N, 4)``, ``(dx, dy, dw, dh)``.
        anchors: ``(N, 4)`` or ``(..., N, 4)``, ``(x1, y1, x2, y2)``.

    Returns:
        Moved boxes ``(..., N, 4)``, ``(x1, y1, x2, y2)``.
    """
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + size / 2 + deltas[..., :2] * size
    half = deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * size / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The deltas that move anchors ``(..., 4)`` onto boxes ``(..., 4)``: the inverse of `decode`."""
    size = anchors[..., 2:] - anchors[..., :2]
    box_size = boxes[..., 2:] - boxes[..., :2]
    shift = (boxes[..., :2] + box_size / 2 - anchors[..., :2] - size / 2) / size
    return torch.cat((shift, (box_size / size).log()), dim=-1)


def clip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Cut boxes ``(..., 4)`` off at the border of a canvas of ``size`` (height, width)."""
    height, width = size
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def pairwise_iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoU ``(B, N, G)`` of boxes ``(B, N, 4)`` and true boxes ``(B, G, 4)``; 0 for boxes without area."""
    corners = torch.minimum(boxes[:, :, None, 2:], truth[:, None, :, 2:])
    sides = (corners - torch.maximum(boxes[:, :, None, :2], truth[:, None, :, :2])).clamp_(min=0)
    shared = sides[..., 0] * sides[..., 1]
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, :, None]
    truth_area = (truth[..., 2:] - truth[..., :2]).prod(-1)[:, None]
    return shared / (area + truth_area - shared).clamp_(min=1e-9)


def pad_boxes(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack boxes of several images.

    Args:
        boxes: Per image ``(n, 4)``, n from 0.

    Returns:
        ``(B, G, 4)``, filled up with zeros, and the mask ``(B, G)`` of what is real; G is at least 1.
    """
    counts = [len(b) for b in boxes]
    most = max(1, *counts)
    padded = torch.stack([F.pad(b, (0, 0, 0, most - n)) for b, n in zip(boxes, counts, strict=True)])
    device = padded.device
    return padded, torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]


def select_proposals(boxes: Tensor, scores: Tensor, *, iou: float = NMS_IOU, most: int = MAX_PROPOSALS) -> Tensor:
    """Indices of the proposals that are kept, best first: non-maximum suppression, then the best ``most``.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou: Boxes that overlap a better one by more are dropped.
        most: How many are kept at most.

    Returns:
        Int64 indices, at most ``most``.
    """
    # Suppression goes down the scores, so the few best boxes decide the outcome unless they are all alike.
    shortlist = scores.topk(min(16 * most, len(scores))).indices
    kept = shortlist[nms(boxes[shortlist], scores[shortlist], iou)[:most]]
    if len(kept) < most and len(shortlist) < len(scores):
        kept = nms(boxes, scores, iou)[:most]
    return kept


def keep_best(boxes: Tensor) -> Tensor:
    """The at most ten kept proposals ``(n, 4)`` of boxes ``(N, 4)`` in order of their scores, best first."""
    order = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    return boxes[nms(boxes, order, NMS_IOU)[:MAX_PROPOSALS]]

"""The paper's networks in exportable form: the results of `detect` and `propose` in tensors of fixed sizes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, clip_boxes_to_image

from detection.boxes import MAX_PROPOSALS, NMS_IOU, decode
from detection.models.paper_faster_rcnn import PaperFasterRCNN, ProposalNetwork, flat_outputs

SHORTLIST = 600
"""Number of best-scored proposals that enter suppression in `ExportableProposals`."""

_ROUNDS = 24
"""Rounds of suppression. Chains of boxes that each suppress the next are short, so that about five would do."""


def suppress(boxes: Tensor, valid: Tensor, iou: float, groups: Tensor | None = None) -> Tensor:
    """Return the mask ``(B, K)`` of boxes that non-maximum suppression keeps, without a loop over boxes.

    A box is kept if no kept box before it overlaps it by more than ``iou``. This rule is recursive: repeated for all
    boxes at once, it is final after n rounds for every box that depends on n others.

    Args:
        boxes: ``(B, K, 4)``, best first.
        valid: ``(B, K)``, whether a box takes part.
        iou: IoU above which a box suppresses a later one.
        groups: ``(B, K)``; boxes suppress only boxes of the same group. By default all are in one group.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 0.0, 30.0, 10.0]]])
        >>> suppress(boxes, torch.ones(1, 3, dtype=torch.bool), iou=0.5)
        tensor([[ True, False,  True]])
    """
    count = boxes.shape[1]
    before = torch.ones(count, count, dtype=torch.bool, device=boxes.device).tril(-1)
    beats = (box_iou(boxes, boxes) > iou) & before
    if groups is not None:
        beats = beats & (groups[:, :, None] == groups[:, None])
    kept = valid
    for _ in range(_ROUNDS):
        kept = valid & ~(beats & kept[:, None]).any(2)
    return kept


def first_kept(kept: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the first ``count`` true entries, at most K, of each row of a mask ``(B, K)``.

    Returns:
        Positions ``(B, count)`` in order, padded with other positions where a row has fewer, and the mask of those
        that are real.

    Example:
        >>> places, real = first_kept(torch.tensor([[False, True, True]]), 2)
        >>> places.tolist(), real.tolist()
        ([[1, 2]], [[True, True]])
    """
    rank = torch.arange(kept.shape[1], 0, -1, device=kept.device)
    order = (rank * kept).topk(count, dim=1)
    return order.indices, order.values > 0


class ExportableProposals(nn.Module):
    """A copy of a `ProposalNetwork` with the paper's selection of proposals, for canvases of one (height, width)."""

    def __init__(self, network: ProposalNetwork, size: tuple[int, int], *, clip_moved: bool = True) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.size, self.clip_moved = size, clip_moved

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes ``(B, 10, 4)``, scores and labels ``(B, 10)`` in canvases ``(B, 1, H, W)``, best first.

        All labels are 1. Unused places at the end have score and label 0.
        """
        logits, deltas, anchors = self.network(images)
        boxes = decode(deltas, anchors)
        if self.clip_moved:
            boxes = clip_boxes_to_image(boxes, self.size)
        boxes, scores, valid, _ = _shortlist(boxes, logits.sigmoid(), SHORTLIST, least_side=1e-6)
        places, real = first_kept(suppress(boxes, valid, NMS_IOU), MAX_PROPOSALS)
        return _pick(boxes, places) * real[..., None], scores.gather(1, places) * real, real.long()


class ExportableDetector(nn.Module):
    """A copy of a `PaperFasterRCNN` with its selection of detections, for canvases of one (height, width)."""

    def __init__(self, network: PaperFasterRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.size = size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes ``(B, K, 4)``, scores and labels ``(B, K)`` in canvases ``(B, 1, H, W)``, best first.

        K is the network's largest number of detections. Labels count from 1. Unused places at the end have score and
        label 0.
        """
        network = self.network
        features = network.backbone(images)
        logits, deltas = flat_outputs(*network.rpn.head([features]))
        moved = decode(deltas, network.rpn.anchor_generator.grid(*features.shape[-2:]))
        moved = clip_boxes_to_image(moved, self.size)
        moved, _, valid, _ = _shortlist(moved, logits, network.rpn.pre_nms_top_n(), least_side=network.rpn.min_size)
        count = min(network.rpn.post_nms_top_n(), moved.shape[1])
        places, real = first_kept(suppress(moved, valid, NMS_IOU), count)
        proposals = _pick(moved, places)
        pooled = network.roi_heads.box_roi_pool.pool(features, proposals)
        hidden = network.roi_heads.box_head(pooled.flatten(0, 1))
        class_logits, box_deltas = network.roi_heads.box_predictor(hidden)
        scores = class_logits.softmax(-1)[:, 1:].unflatten(0, (-1, count)) * real[..., None]
        weights = torch.tensor(network.roi_heads.box_coder.weights, device=images.device)
        box_deltas = box_deltas.unflatten(1, (-1, 4))[:, 1:].unflatten(0, (-1, count)) / weights
        boxes = clip_boxes_to_image(decode(box_deltas, proposals[:, :, None]), self.size)
        return self._best(boxes, scores)

    def _best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select the final detections from boxes ``(B, K, C, 4)`` and scores ``(B, K, C)`` of all classes."""
        heads = self.network.roi_heads
        classes = scores.shape[2]
        scores = scores * (scores > heads.score_thresh)
        candidates = self.network.rpn.pre_nms_top_n()
        boxes, scores, valid, index = _shortlist(boxes.flatten(1, 2), scores.flatten(1), candidates, least_side=1e-2)
        labels = index % classes + 1
        kept = suppress(boxes, valid & (scores > 0), heads.nms_thresh, labels)
        places, real = first_kept(kept, min(heads.detections_per_img, kept.shape[1]))
        boxes = _pick(boxes, places) * real[..., None]
        return boxes, scores.gather(1, places) * real, labels.gather(1, places) * real


def _shortlist(
    boxes: Tensor, scores: Tensor, number: int, *, least_side: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the best-scored boxes in order, their scores, whether they are large enough, and their positions."""
    best = scores.topk(min(number, scores.shape[1]), dim=1)
    boxes = _pick(boxes, best.indices)
    valid = (boxes[..., 2:] - boxes[..., :2] >= least_side).all(-1)
    return boxes, best.values, valid, best.indices


def _pick(boxes: Tensor, places: Tensor) -> Tensor:
    """Return the boxes of ``(B, K, 4)`` at positions ``(B, P)``."""
    return boxes.gather(1, places[..., None].expand(-1, -1, 4))

"""The authors' own protocol: sampling, losses and selection of region proposals (Liu et al., 2018).

All of it works on a whole batch at once; every image is matched and sampled for itself, so a batch of B gives
the mean of what B batches of one give. It differs from torchvision's training of a region proposal network in
that anchors are matched *after* they were moved: the better a box already fits, the more it is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.boxes import clip, decode, encode, pad_boxes, pairwise_iou, select_proposals

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLES = 12
"""Boxes that an image trains per step, half of them positive (the paper's)."""

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.1
"""A moved box above the first with any true box is positive, below the second with all negative."""


class Samples(NamedTuple):
    """Boxes chosen for one step, as index vectors into ``(B, N)`` boxes and ``(B, G)`` true boxes."""

    positive_image: Tensor
    positive_box: Tensor
    positive_truth: Tensor
    negative_image: Tensor
    negative_box: Tensor


def _choose(candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw up to ``count`` true entries per row of a mask ``(B, M)``, uniformly: row and column indices."""
    keys = torch.rand(candidates.shape, device=candidates.device).masked_fill_(~candidates, -1.0)
    chosen, column = keys.topk(min(count, keys.shape[1]), dim=1)
    row, place = (chosen >= 0).nonzero(as_tuple=True)
    return row, column[row, place]


@torch.no_grad()
def sample(boxes: Tensor, truth: Tensor, real: Tensor, size: Sequence[int]) -> Samples:
    """Choose the boxes that train: per image six positive and six negative ones, fewer if there are fewer.

    Positive candidates are pairs (box, true box): those above `POSITIVE_IOU` whose box lies within the
    canvas, and for each true box the box closest to it. Negative candidates overlap every true box by less
    than `NEGATIVE_IOU`, lie within the canvas and are closest to none; an image without such boxes takes any
    that is not positive.

    Args:
        boxes: Moved boxes ``(B, N, 4)``.
        truth: True boxes ``(B, G, 4)``.
        real: Mask ``(B, G)`` of the true boxes that are no filling.
        size: Height and width of the canvas in pixels.

    Returns:
        The choice, uniform among the candidates of each image, without repetition.
    """
    height, width = size
    iou = pairwise_iou(boxes, truth).masked_fill_(~real[:, None], 0.0)
    inside = (boxes[..., :2] >= 0).all(-1) & (boxes[..., 2] <= width) & (boxes[..., 3] <= height)
    positive = (iou > POSITIVE_IOU) & inside[..., None]
    positive.scatter_(1, iou.argmax(1, keepdim=True), True)
    positive &= real[:, None]
    never = positive.any(2)
    negative = (iou < NEGATIVE_IOU).all(2) & inside & ~never
    negative = torch.where(negative.any(1, keepdim=True), negative, ~never)
    image, pair = _choose(positive.flatten(1), SAMPLES // 2)
    negative_image, negative_box = _choose(negative, SAMPLES - SAMPLES // 2)
    groups = truth.shape[1]
    return Samples(image, pair // groups, pair % groups, negative_image, negative_box)


def smooth_l1(x: Tensor) -> Tensor:
    """The authors' smooth L1: ``x^2`` up to 1, ``|x|`` beyond (torch's halves the square)."""
    size = x.abs()
    return torch.where(size > 1, size, x.square())


def proposal_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    truth: Sequence[Tensor],
    size: Sequence[int],
    *,
    clip_moved: bool = True,
) -> dict[str, Tensor]:
    """The two losses of the authors' protocol, each a mean over the images.

    Args:
        logits: Objectness ``(B, N)``, the difference of the paper's two scores.
        deltas: Moves ``(B, N, 4)`` of the anchors.
        anchors: ``(N, 4)``.
        truth: True boxes of each image, ``(n, 4)``, within the canvas; n may be 0.
        size: Height and width of the canvas in pixels.
        clip_moved: Cut moved boxes off at the border before they are matched. The authors' code leaves the
            choice open; without it, boxes beyond the border are no samples unless they are the closest to a
            true box.

    Returns:
        "box_loss": per image the mean, over the positive samples, of the smooth L1 distance summed over the
        four deltas (0 for an image without true boxes). "score_loss": per image the mean softmax
        cross-entropy over all samples.
    """
    truth_boxes, real = pad_boxes(truth)
    with torch.no_grad():
        moved = decode(deltas, anchors)
        if clip_moved:
            moved = clip(moved, size)
    chosen = sample(moved, truth_boxes, real, size)
    images = len(logits)
    wanted = encode(truth_boxes[chosen.positive_image, chosen.positive_truth], anchors[chosen.positive_box])
    distance = smooth_l1(deltas[chosen.positive_image, chosen.positive_box] - wanted).sum(1)
    image = torch.cat((chosen.positive_image, chosen.negative_image))
    picked = logits[image, torch.cat((chosen.positive_box, chosen.negative_box))]
    label = torch.zeros_like(picked)
    label[: len(chosen.positive_image)] = 1
    entropy = F.binary_cross_entropy_with_logits(picked, label, reduction="none")
    return {
        "box_loss": _mean_of_means(distance, chosen.positive_image, images),
        "score_loss": _mean_of_means(entropy, image, images),
    }


def _mean_of_means(values: Tensor, image: Tensor, images: int) -> Tensor:
    """Mean over ``images`` images of the mean of each image's values; an image without values counts as 0."""
    if images == 1:
        return values.sum() / max(len(values), 1)
    counts = torch.bincount(image, minlength=images).clamp(min=1)
    return (values / counts[image]).sum() / images


@torch.no_grad()
def propose(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: Sequence[int], *, clip_moved: bool = True
) -> list[dict[str, Tensor]]:
    """Proposals of a batch as the paper tests them: moved, clipped, suppressed at IoU 0.8, at most ten.

    Args:
        logits: ``(B, N)``.
        deltas: ``(B, N, 4)``.
        anchors: ``(N, 4)``.
        size: Height and width of the canvas in pixels.
        clip_moved: Cut moved boxes off at the border.

    Returns:
        Per image "boxes" ``(n, 4)`` and "scores" ``(n,)`` in (0, 1), best first, n from 1 to 10. Boxes
        without area are dropped, as torchvision does.
    """
    moved = decode(deltas, anchors)
    if clip_moved:
        moved = clip(moved, size)
    scores = logits.sigmoid()
    result = []
    for boxes, score in zip(moved, scores, strict=True):
        solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        if not solid.all():
            boxes, score = boxes[solid], score[solid]
        kept = select_proposals(boxes, score)
        result.append({"boxes": boxes[kept], "scores": score[kept]})
    return result

"""Sampling and losses of the authors' own protocol, region proposals alone (Liu et al., 2018).

Every image is matched and sampled independently, so that the loss of a batch is the mean of the losses of its images.
Unlike in torchvision's region proposal network, anchors are matched *after* the network moved them, so that training
concentrates on boxes that already fit well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from detection.boxes import decode, encode, pad_boxes

SAMPLES = 12
"""Boxes sampled per image and step, half of them positive (the paper's)."""

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.1
"""A moved box is positive above the first IoU with any true box, negative below the second with all of them."""


class Samples(NamedTuple):
    """Boxes sampled for one step, as index vectors into ``(B, N)`` boxes and ``(B, G)`` true boxes."""

    positive_image: Tensor
    positive_box: Tensor
    positive_truth: Tensor
    negative_image: Tensor
    negative_box: Tensor


def _draw(candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw up to ``count`` true entries per row of a mask ``(B, M)`` uniformly; return their rows and columns."""
    keys = torch.rand(candidates.shape, device=candidates.device).masked_fill_(~candidates, -1.0)
    chosen, column = keys.topk(min(count, keys.shape[1]), dim=1)
    row, place = (chosen >= 0).nonzero(as_tuple=True)
    return row, column[row, place]


@torch.no_grad()
def sample(boxes: Tensor, truth: Tensor, real: Tensor, size: tuple[int, int]) -> Samples:
    """Sample boxes uniformly: per image six positive and six negative ones, or all if there are fewer.

    Positive candidates are pairs (box, true box): pairs with an IoU above `POSITIVE_IOU` whose box lies within the
    canvas, and for each true box the box with the largest IoU. Negative candidates have an IoU below `NEGATIVE_IOU`
    with every true box, lie within the canvas and are in no positive pair. An image without such boxes takes any box
    that is in no positive pair.

    Args:
        boxes: Moved boxes ``(B, N, 4)``.
        truth: True boxes ``(B, G, 4)``.
        real: Mask ``(B, G)`` of the true boxes that are not padding.
        size: Height and width of the canvas in pixels.
    """
    height, width = size
    # A padded true box has no area: its IoU with a box without area is NaN, which the mask removes.
    iou = box_iou(boxes, truth).masked_fill_(~real[:, None], 0.0)
    inside = (boxes[..., :2] >= 0).all(-1) & (boxes[..., 2] <= width) & (boxes[..., 3] <= height)
    positive = (iou > POSITIVE_IOU) & inside[..., None]
    positive.scatter_(1, iou.argmax(1, keepdim=True), True)
    positive &= real[:, None]
    never = positive.any(2)
    negative = (iou < NEGATIVE_IOU).all(2) & inside & ~never
    negative = torch.where(negative.any(1, keepdim=True), negative, ~never)
    image, pair = _draw(positive.flatten(1), SAMPLES // 2)
    groups = truth.shape[1]
    return Samples(image, pair // groups, pair % groups, *_draw(negative, SAMPLES - SAMPLES // 2))


def smooth_l1(x: Tensor) -> Tensor:
    """Return the authors' smooth L1: ``x^2`` up to 1, ``|x|`` beyond (torch's halves the square).

    Example:
        >>> smooth_l1(torch.tensor([-0.5, 3.0]))
        tensor([0.2500, 3.0000])
    """
    size = x.abs()
    return torch.where(size > 1, size, x.square())


def proposal_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    truth: Sequence[Tensor],
    size: tuple[int, int],
    *,
    clip_moved: bool = True,
) -> dict[str, Tensor]:
    """Compute the two losses of the authors' protocol, each a mean over the images.

    Args:
        logits: Objectness ``(B, N)``, the difference of the paper's two scores.
        deltas: ``(B, N, 4)``, ``(dx, dy, dw, dh)``.
        anchors: ``(N, 4)``.
        truth: True boxes of each image, ``(n, 4)``; n may be 0.
        size: Height and width of the canvas in pixels.
        clip_moved: Whether to clip moved boxes to the canvas before matching (an option of the authors' code).
            Without it, a box beyond the border is a sample only if it has the largest IoU with a true box.

    Returns:
        "box_loss": per image the mean, over the positive samples, of the smooth L1 distance summed over the four
        deltas (0 for an image without true boxes). "score_loss": per image the mean softmax cross-entropy over all
        samples.
    """
    truth_boxes, real = pad_boxes(truth)
    with torch.no_grad():
        moved = decode(deltas, anchors)
        if clip_moved:
            moved = clip_boxes_to_image(moved, size)
    samples = sample(moved, truth_boxes, real, size)
    images = len(logits)
    wanted = encode(truth_boxes[samples.positive_image, samples.positive_truth], anchors[samples.positive_box])
    distance = smooth_l1(deltas[samples.positive_image, samples.positive_box] - wanted).sum(1)
    image = torch.cat((samples.positive_image, samples.negative_image))
    picked = logits[image, torch.cat((samples.positive_box, samples.negative_box))]
    label = torch.zeros_like(picked)
    label[: len(samples.positive_image)] = 1
    entropy = F.binary_cross_entropy_with_logits(picked, label, reduction="none")
    return {
        "box_loss": _average_per_image(distance, samples.positive_image, images),
        "score_loss": _average_per_image(entropy, image, images),
    }


def _average_per_image(values: Tensor, image: Tensor, images: int) -> Tensor:
    """Average values within each image, then over ``images`` images; an image without values counts as 0."""
    if images == 1:
        return values.sum() / max(len(values), 1)
    counts = torch.bincount(image, minlength=images).clamp(min=1)
    return (values / counts[image]).sum() / images

"""Arithmetic and selection of boxes against torchvision's."""

import pytest
import torch
from torchvision.ops import box_iou, nms

from detection.boxes import decode, encode, propose, select_proposals
from detection.models.paper_faster_rcnn import PaperFasterRCNN
from tests.detection.inputs import random_boxes


def test_decode_and_encode_are_torchvisions_and_inverse() -> None:
    anchors = random_boxes(50)
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) * 0.5
    moved = decode(deltas, anchors)
    coder = PaperFasterRCNN(10).rpn.box_coder  # weights (1, 1, 1, 1)
    assert torch.allclose(moved, coder.decode_single(deltas, anchors), atol=1e-4)
    assert torch.allclose(encode(moved, anchors), deltas, atol=1e-4)
    assert torch.allclose(encode(moved, anchors), coder.encode_single(moved, anchors), atol=1e-4)
    huge = decode(torch.full((50, 4), 1e4), anchors)
    assert huge.isfinite().all()


@pytest.mark.parametrize("spread", [0.0, 1.0, 40.0])
def test_selection_equals_full_suppression_then_the_best_ten(spread: float) -> None:
    """Also when all boxes are alike, so that the shortlist is not enough."""
    boxes = random_boxes(900, seed=4) * min(spread / 40, 1.0) + torch.tensor([0.0, 0.0, 30.0, 30.0])
    scores = torch.rand(900, generator=torch.Generator().manual_seed(5))
    kept = select_proposals(boxes, scores)
    assert torch.equal(kept, nms(boxes, scores, 0.8)[:10])


def test_proposals_keep_within_the_canvas_best_first() -> None:
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 500), torch.randn(2, 500, 4) * 0.3
    results = propose(logits, deltas, random_boxes(500), (64, 64))
    for result in results:
        assert len(result["boxes"]) == 10
        assert (result["boxes"] >= 0).all()
        assert (result["boxes"] <= 64).all()
        assert (result["scores"].diff() <= 0).all()
        overlap = box_iou(result["boxes"], result["boxes"]).fill_diagonal_(0)
        assert overlap.max() <= 0.8
    away = propose(logits[:, :1], torch.full((2, 1, 4), 50.0), random_boxes(1), (64, 64))
    assert all(len(result["boxes"]) == 0 for result in away), "nothing of the box is on the canvas"

"""The exportable networks find what the networks find image by image."""

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms, nms

from coordconv_apps.nn.coords import Coords
from detection import export
from detection.boxes import propose
from detection.models.coord_layers import add_coords
from detection.models.detectors import detect
from detection.models.paper_faster_rcnn import Padding, PaperFasterRCNN, ProposalNetwork
from tests.detection.inputs import random_boxes


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("spread", [5.0, 40.0])
def test_suppression_equals_torchvisions(iou: float, spread: float) -> None:
    boxes = random_boxes(3, 300, spread=spread)
    order = torch.arange(300.0, 0, -1)
    kept = export.suppress(boxes, torch.ones(3, 300, dtype=torch.bool), iou)
    groups = torch.arange(300).remainder(3).expand(3, -1)
    kept_in_groups = export.suppress(boxes, torch.ones(3, 300, dtype=torch.bool), iou, groups)
    for image in range(3):
        assert kept[image].nonzero()[:, 0].tolist() == nms(boxes[image], order, iou).tolist()
        expected = batched_nms(boxes[image], order, groups[image], iou)
        assert kept_in_groups[image].nonzero()[:, 0].tolist() == expected.tolist()


def test_boxes_that_take_no_part_suppress_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]] * 3])
    kept = export.suppress(boxes, torch.tensor([[False, True, True]]), 0.5)
    assert kept.tolist() == [[False, True, False]]


def test_first_kept_keeps_the_order() -> None:
    mask = torch.tensor([[False, True, True, False, True], [False] * 5, [True] * 5])
    places, real = export.first_kept(mask, 3)
    assert [p[r].tolist() for p, r in zip(places, real, strict=True)] == [[1, 2, 4], [], [0, 1, 2]]


def sharpened(network: nn.Module, spread: float = 0.3) -> nn.Module:
    """Give an untrained network scores that differ and boxes that move; with a small spread, many overlap."""
    for name, parameter in network.named_parameters():
        if name.endswith(("box_out.weight", "bbox_pred.weight")):
            nn.init.normal_(parameter, std=spread)
        if name.endswith("cls_score.weight"):
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("coords", ["none", "xyr"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_proposals_are_the_same(padding: Padding, coords: Coords, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = ProposalNetwork(padding=padding)
    add_coords(network, coords)
    images = torch.rand(3, 1, *size)
    with torch.no_grad():
        logits, deltas, anchors = sharpened(network)(images)
        expected = propose(logits, deltas, anchors, size)
        boxes, scores, labels = export.ExportableProposals(network, size)(images)
    assert boxes.shape == (3, 10, 4)
    for image, one in enumerate(expected):
        assert torch.allclose(boxes[image], one["boxes"], atol=1e-4)
        assert torch.allclose(scores[image], one["scores"], atol=1e-6)
    assert (labels == 1).all()


@pytest.mark.parametrize(
    ("padding", "coords", "most", "spread"),
    [("same", "none", 20, 0.3), ("valid", "none", 20, 0.3), ("valid", "xy", 20, 0.3), ("same", "xy", 200, 0.02)],
)
def test_detections_are_the_same(padding: Padding, coords: Coords, most: int, spread: float) -> None:
    torch.manual_seed(0)
    network = PaperFasterRCNN(10, padding=padding, max_detections=most)
    add_coords(network, coords)
    images = torch.rand(4, 1, 64, 64)
    expected, proposals = detect(sharpened(network, spread), images)
    with torch.no_grad():
        boxes, scores, labels = export.ExportableDetector(network, (64, 64))(images)
    assert boxes.shape == (4, most, 4)
    assert proposals is not None
    assert all(len(p) for p in proposals)
    assert max(len(one["boxes"]) for one in expected) > 5, "a test of nothing else"
    for image, one in enumerate(expected):
        count = len(one["boxes"])
        assert torch.allclose(boxes[image, :count], one["boxes"], atol=1e-3)
        assert torch.allclose(scores[image, :count], one["scores"], atol=1e-5)
        assert torch.equal(labels[image, :count], one["labels"])
        assert not scores[image, count:].any()
        assert not labels[image, count:].any()

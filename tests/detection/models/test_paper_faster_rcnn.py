"""The paper's networks: anchors, geometry, heads, mixed precision, canvases without objects."""

import itertools

import pytest
import torch
from torch import nn

from detection.boxes import propose
from detection.models.detectors import detect
from detection.models.paper_faster_rcnn import (
    ANCHOR_SIZES,
    CanvasTransform,
    FixedAnchors,
    Padding,
    PaperFasterRCNN,
    PaperRPNHead,
    ProposalNetwork,
)
from tests.detection.inputs import targets


def test_anchors_are_the_nine_of_the_paper_at_the_centres_of_the_receptive_fields() -> None:
    anchors = FixedAnchors(ANCHOR_SIZES, stride=4, first_centre=8.0)
    grid = anchors.grid(2, 3)
    expected = [
        [8 + 4 * x - w / 2, 8 + 4 * y - h / 2, 8 + 4 * x + w / 2, 8 + 4 * y + h / 2]
        for y in range(2)
        for x in range(3)
        for h, w in itertools.product((15, 20, 25), repeat=2)
    ]
    assert torch.equal(grid, torch.tensor(expected))
    assert anchors.grid(2, 3) is grid, "computed once"
    assert anchors.grid(3, 2).shape == grid.shape
    assert anchors.num_anchors_per_location() == [9]


@pytest.mark.parametrize(("padding", "side", "centre"), [("same", 16, 2.0), ("valid", 13, 8.0)])
def test_feature_map_and_its_geometry_follow_from_the_layers(padding: Padding, side: int, centre: float) -> None:
    network = ProposalNetwork(padding=padding)
    logits, deltas, anchors = network(torch.rand(2, 1, 64, 64))
    assert logits.shape == (2, side * side * 9)
    assert deltas.shape == (2, side * side * 9, 4)
    assert anchors.shape == (side * side * 9, 4)
    # The pixels that a position's feature depends on lie around the centre that its anchors have.
    canvas = torch.rand(1, 1, 64, 64, requires_grad=True)
    with torch.no_grad():
        for layer in (network.backbone.conv1, network.backbone.conv2):
            layer.weight.abs_()
    network.backbone(canvas)[0, :, 5, 5].sum().backward()
    assert canvas.grad is not None
    seen = canvas.grad[0, 0].nonzero()
    # Pooling picks one input of four: the field is bounded by 16 pixels around the centre.
    assert (seen + 0.5 - (centre + 4 * 5)).abs().max() <= 8


def test_parameters_are_those_of_the_paper() -> None:
    shapes = {name: tuple(p.shape) for name, p in ProposalNetwork().named_parameters() if name.endswith("weight")}
    assert shapes == {
        "backbone.conv1.weight": (32, 1, 5, 5),
        "backbone.conv2.weight": (64, 32, 5, 5),
        "rpn.head.shared.weight": (32, 64, 3, 3),
        "rpn.head.box_hidden.weight": (32, 32, 3, 3),
        "rpn.head.box_out.weight": (36, 32, 1, 1),
        "rpn.head.score.weight": (18, 32, 1, 1),
    }


def test_box_branch_starts_at_zero_so_boxes_start_at_their_anchors() -> None:
    torch.manual_seed(0)
    network = ProposalNetwork()
    logits, deltas, _ = network(torch.rand(1, 1, 64, 64))
    assert not deltas.any()
    assert logits.std() > 0


def test_objectness_is_the_difference_of_the_two_scores_anchor_by_anchor() -> None:
    torch.manual_seed(0)
    head = PaperRPNHead(64)
    nn.init.normal_(head.box_out.weight)
    feature = torch.randn(2, 64, 3, 4)
    (objectness,), (deltas,) = head([feature])
    hidden = head.shared(feature).relu()
    pair = head.score(hidden)
    for anchor in range(9):
        assert torch.allclose(objectness[:, anchor], pair[:, 2 * anchor] - pair[:, 2 * anchor + 1], atol=1e-6)
    # The cross-entropy of the paper's softmax over (object, background) is that of this one logit.
    two = torch.stack((pair[:, 0], pair[:, 1]), dim=1)
    softmax = nn.functional.cross_entropy(two, torch.zeros(2, 3, 4, dtype=torch.int64))
    sigmoid = nn.functional.binary_cross_entropy_with_logits(objectness[:, 0], torch.ones(2, 3, 4))
    assert torch.allclose(softmax, sigmoid, atol=1e-6)
    assert deltas.shape == (2, 36, 3, 4)


def test_both_stages_read_the_head_in_the_same_order() -> None:
    """A proposal's score, deltas and anchor belong together in `ProposalNetwork` as in torchvision's own code."""
    torch.manual_seed(0)
    two_stage = PaperFasterRCNN(10, padding="valid").eval()
    nn.init.normal_(two_stage.rpn.head.box_out.weight, std=0.05)
    single = ProposalNetwork(padding="valid")
    weights = {k: v for k, v in two_stage.state_dict().items() if not k.startswith("roi_heads")}
    single.load_state_dict(weights)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        logits, deltas, anchors = single(images)
        ours = propose(logits, deltas, anchors, (64, 64))
        _, theirs = detect(two_stage, images)
    assert theirs is not None
    for mine, boxes in zip(ours, theirs, strict=True):
        assert torch.allclose(mine["boxes"], boxes, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_canvases_are_neither_normalised_nor_resized(training: bool) -> None:
    transform = CanvasTransform().train(training)
    batch, boxes = torch.rand(2, 1, 30, 44), targets(1, 0)
    for images in (batch, list(batch)):
        out, kept = transform(images, boxes)
        assert torch.equal(out.tensors, batch)
        assert out.image_sizes == [(30, 44), (30, 44)]
        assert kept is not None
        assert torch.equal(kept[0]["boxes"], boxes[0]["boxes"])


def test_canvases_without_a_digit_train_and_evaluate() -> None:
    torch.manual_seed(0)
    network = PaperFasterRCNN(10)
    for counts in ((0, 3), (0, 0)):
        losses = network(torch.rand(2, 1, 64, 64), targets(*counts))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    found, kept = detect(network.eval(), torch.zeros(2, 1, 64, 64))
    assert len(found) == 2
    assert kept is not None
    assert all(result["boxes"].shape[1:] == (4,) for result in found)


@pytest.mark.parametrize("images", [1, 2])
def test_without_proposals_nothing_is_found(images: int) -> None:
    network = PaperFasterRCNN(num_classes=3).eval()
    nn.init.constant_(network.rpn.head.box_out.bias, -50.0)  # every box leaves the canvas, as at a huge learning rate
    found = detect(network, torch.rand(images, 1, 64, 64))
    assert [len(each["boxes"]) for each in found.detections] == [0] * images
    assert found.proposals is not None
    assert [len(each) for each in found.proposals] == [0] * images


def test_mixed_precision_keeps_boxes_in_float32() -> None:
    torch.manual_seed(0)
    network = PaperFasterRCNN(10)
    images, truth = torch.rand(2, 1, 64, 64), targets(3, 0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(images, truth)
        found, kept = detect(network.eval(), images)
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert kept is not None
    assert all(boxes.dtype == torch.float32 for boxes in kept)
    assert all(result["boxes"].dtype == torch.float32 for result in found)
    # The box branch starts at zero: proposals are the anchors, which bfloat16 could not tell apart near 64.
    anchors = FixedAnchors(ANCHOR_SIZES, 4, 2.0).grid(16, 16).clamp(0, 64)
    for boxes in kept:
        assert torch.cdist(boxes, anchors).amin(1).max() < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (120, 33)])
def test_any_image_size_is_accepted(size: tuple[int, int]) -> None:
    network = PaperFasterRCNN(10).eval()
    found, kept = detect(network, torch.rand(1, 1, *size))
    assert kept is not None
    assert len(kept[0]) >= 1
    for boxes in (found[0]["boxes"], kept[0]):
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()

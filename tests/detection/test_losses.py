"""The authors' protocol: sampling against loops over boxes, losses against their formulas."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from detection.boxes import pad_boxes, propose
from detection.losses import proposal_losses, sample, smooth_l1
from detection.models.coord_layers import add_coords
from detection.models.paper_faster_rcnn import ProposalNetwork
from tests.detection.inputs import random_boxes, targets


def loop_candidates(boxes: Tensor, truth: Tensor, size: tuple[int, int]) -> tuple[set[tuple[int, int]], set[int]]:
    """Positive pairs and negative boxes of one image, one by one."""
    height, width = size
    iou = box_iou(boxes, truth)
    inside = [x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height for x1, y1, x2, y2 in boxes.tolist()]
    closest = {(int(iou[:, t].argmax()), t) for t in range(len(truth))}
    positive = set(closest)
    negative = set()
    for b in range(len(boxes)):
        for t in range(len(truth)):
            if iou[b, t] > 0.5 and inside[b]:
                positive.add((b, t))
        if inside[b] and all(iou[b, t] < 0.1 for t in range(len(truth))):
            negative.add(b)
    positive_boxes = {b for b, _ in positive}
    negative -= positive_boxes
    return positive, negative or set(range(len(boxes))) - positive_boxes


def test_samples_are_drawn_uniformly_from_the_right_candidates() -> None:
    counts = (5, 1, 0, 2)
    boxes = random_boxes(4, 200, seed=2) - 3  # some beyond the border
    truth = [t["boxes"] for t in targets(*counts, seed=3)]
    padded, real = pad_boxes(truth)
    expected = [loop_candidates(b, t, (64, 64)) for b, t in zip(boxes, truth, strict=True)]
    drawn_positive: list[set[tuple[int, int]]] = [set() for _ in counts]
    drawn_negative: list[set[int]] = [set() for _ in counts]
    torch.manual_seed(0)
    for _ in range(300):
        chosen = sample(boxes, padded, real, (64, 64))
        for image, (positive, negative) in enumerate(expected):
            mine = chosen.positive_image == image
            pairs = list(zip(chosen.positive_box[mine].tolist(), chosen.positive_truth[mine].tolist(), strict=True))
            others = chosen.negative_box[chosen.negative_image == image].tolist()
            assert len(set(pairs)) == len(pairs) == min(6, len(positive)), "without repetition"
            assert len(set(others)) == len(others) == min(6, len(negative))
            assert set(pairs) <= positive
            assert set(others) <= negative
            drawn_positive[image] |= set(pairs)
            drawn_negative[image] |= set(others)
    assert drawn_positive == [positive for positive, _ in expected], "every candidate comes up"
    assert all(len(drawn) > 0.9 * len(negative) for drawn, (_, negative) in zip(drawn_negative, expected, strict=True))


def test_without_a_negative_box_any_box_that_is_not_positive_serves() -> None:
    truth = torch.tensor([[[0.0, 0.0, 64.0, 64.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 60.0, 60.0], [0.0, 0.0, 30.0, 60.0], [30.0, 0.0, 60.0, 40.0]]])
    chosen = sample(boxes, truth, torch.ones(1, 1, dtype=torch.bool), (64, 64))
    assert chosen.positive_box.tolist() == [0]
    assert sorted(chosen.negative_box.tolist()) == [1, 2]


def test_padding_is_never_a_sample() -> None:
    """Not even with boxes that lost their area when they were clipped."""
    chosen = sample(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool), (64, 64))
    assert len(chosen.positive_box) == 0
    assert sorted(chosen.negative_box.tolist()) == [0, 1, 2]


def test_boxes_are_matched_after_they_moved() -> None:
    """An anchor far from the true box counts as positive once its deltas carry it there."""
    anchors = torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0]])
    truth = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    deltas = torch.tensor([[[2.0, 2.0, 0.0, 0.0], [-2.0, -2.0, 0.0, 0.0]]])  # they change places
    losses = proposal_losses(torch.zeros(1, 2), deltas, anchors, [truth], (64, 64))
    # Positive is the second anchor, with no distance left to its target.
    assert float(losses["box_loss"]) == 0.0
    stay = proposal_losses(torch.zeros(1, 2), deltas * 0, anchors, [truth], (64, 64))
    assert float(stay["box_loss"]) == 0.0


def test_losses_equal_their_formulas() -> None:
    """With few enough candidates nothing is left to chance."""
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 60.0, 60.0], [40.0, 0.0, 60.0, 20.0]])
    truth = torch.tensor([[12.0, 10.0, 32.0, 30.0]])
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    logits = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    losses = proposal_losses(logits, deltas, anchors, [truth], (64, 64))
    assert losses["box_loss"].item() == pytest.approx(0.1**2, rel=1e-5)  # dx = 2 / 20
    labels = [1.0, 0.0, 0.0]
    entropies = [
        -math.log(1 / (1 + math.exp(-z if label else z)))
        for z, label in zip(logits[0].detach().tolist(), labels, strict=True)
    ]
    assert losses["score_loss"].item() == pytest.approx(sum(entropies) / 3, rel=1e-5)
    (losses["box_loss"] + losses["score_loss"]).backward()
    assert deltas.grad is not None
    assert deltas.grad[0, 0, 0] == pytest.approx(-2 * 0.1, rel=1e-5), "no gradient but that of the distance"
    assert not deltas.grad[0, 1:].any()


def test_batch_of_images_gives_the_mean_of_single_images() -> None:
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 60.0, 60.0], [40.0, 0.0, 60.0, 20.0]])
    truth = [torch.tensor([[12.0, 10.0, 32.0, 30.0]]), torch.zeros(0, 4), torch.tensor([[38.0, 41.0, 60.0, 61.0]])]
    generator = torch.Generator().manual_seed(0)
    logits, deltas = torch.randn(3, 3, generator=generator), torch.randn(3, 3, 4, generator=generator) * 0.02
    together = proposal_losses(logits, deltas, anchors, truth, (64, 64))
    for name, value in together.items():
        alone = [
            proposal_losses(logits[i : i + 1], deltas[i : i + 1], anchors, truth[i : i + 1], (64, 64)) for i in range(3)
        ]
        assert float(value) == pytest.approx(sum(float(a[name]) for a in alone) / 3, rel=1e-5)


def test_smooth_l1_is_the_authors() -> None:
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    assert torch.equal(smooth_l1(x), torch.tensor([3.0, 0.25, 0.0, 0.25, 1.0, 2.0]))


def test_training_on_one_canvas_finds_its_object() -> None:
    """Loss, matching and decoding fit together: a few dozen steps bring the best proposal onto the object."""
    torch.manual_seed(0)
    network = ProposalNetwork()
    add_coords(network, "xy")
    image = torch.zeros(1, 1, 64, 64)
    truth = torch.tensor([[6.0, 8.0, 28.0, 25.0]])
    for x1, y1, x2, y2 in truth.int().tolist():
        image[0, 0, y1:y2, x1:x2] = torch.rand(y2 - y1, x2 - x1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(80):
        logits, deltas, anchors = network(image)
        losses = proposal_losses(logits, deltas, anchors, [truth], (64, 64))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        logits, deltas, anchors = network(image)
        (result,) = propose(logits, deltas, anchors, (64, 64))
    assert box_iou(truth, result["boxes"])[0, 0] > 0.7

"""The paper's networks, where coordinates reach them, torchvision's by name, and the authors' protocol."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils as tv_utils
from torchvision.ops import box_iou, nms, roi_align

from coordconv_apps import CoordConv2d
from coordconv_apps.nn.coords import Coords
from detection import boxes as box_math
from detection import proposals
from detection.models import add_coords, as_input, build_network, detect, torchvision_detectors
from detection.paper import (
    ANCHOR_SIZES,
    CanvasRoIAlign,
    CanvasTransform,
    FixedAnchors,
    PaperFasterRCNN,
    PaperRPNHead,
    ProposalNetwork,
)


def targets(*counts: int, seed: int = 0, size: int = 64) -> list[dict[str, Tensor]]:
    """True boxes of images with the given numbers of objects."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * (size - 26)
        sides = 12 + torch.rand(count, 2, generator=generator) * 13
        labels = torch.randint(1, 11, (count,), generator=generator)
        result.append({"boxes": torch.cat((corner, corner + sides), dim=1), "labels": labels})
    return result


# ------------------------------------------------------------------ the paper's network


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
def test_feature_map_and_its_geometry_follow_from_the_layers(padding: str, side: int, centre: float) -> None:
    network = build_network("paper", protocol="proposals", padding=padding)  # type: ignore[arg-type]  # parametrised
    assert isinstance(network, ProposalNetwork)
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
        ours = proposals.propose(logits, deltas, anchors, (64, 64))
        _, theirs = detect(two_stage, images)
    assert theirs is not None
    for mine, boxes in zip(ours, theirs, strict=True):
        assert torch.allclose(mine["boxes"], box_math.keep_best(boxes), atol=1e-4)


def test_roi_align_pools_where_the_positions_lie() -> None:
    """On a map that holds each position's own coordinates, pooling a box gives coordinates within the box."""
    for first_centre in (2.0, 8.0):
        at = torch.arange(13.0) * 4 + first_centre
        y, x = torch.meshgrid(at, at, indexing="ij")
        box = torch.tensor([[14.0, 18.0, 34.0, 28.0]])
        pooled = CanvasRoIAlign(5, first_centre)({"0": torch.stack((x, y))[None]}, [box], [(64, 64)])
        assert torch.allclose(pooled[0, 0], torch.tensor([16.0, 20, 24, 28, 32]).expand(5, 5), atol=1e-4)
        assert torch.allclose(pooled[0, 1], torch.tensor([19.0, 21, 23, 25, 27])[:, None].expand(5, 5), atol=1e-4)


def test_roi_align_equals_torchvisions() -> None:
    """Values and gradients, for boxes within, across and beyond the border, and images with none."""
    features = torch.randn(3, 8, 13, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = [random_boxes(6).double() - 5, torch.zeros(0, 4).double(), random_boxes(7, seed=1).double() * 2]
    results, gradients = [], []
    for pool in (
        CanvasRoIAlign(5, 8.0),
        lambda x, b, _: roi_align(x["0"], [c - 6.0 for c in b], 5, 0.25, sampling_ratio=1, aligned=True),
    ):
        leaf = features.to(memory_format=torch.channels_last).requires_grad_()
        results.append(pool({"0": leaf}, boxes, [(64, 80)] * 3))
        weight = torch.linspace(-1, 1, results[-1].numel(), dtype=torch.float64).view_as(results[-1])
        gradients.append(torch.autograd.grad((results[-1] * weight).sum(), leaf)[0])
    assert torch.allclose(results[0], results[1])
    assert torch.allclose(gradients[0], gradients[1])


def test_roi_align_finds_the_place_in_half_precision_too() -> None:
    """A position far to the right, which is no number of half precision."""
    features = torch.zeros(1, 1, 4, 301)
    features[..., 299:] = 1
    box = torch.tensor([[299.0 * 4 - 6, 0, 299.0 * 4 + 10, 16]])
    wanted = CanvasRoIAlign(5, 2.0)({"0": features}, [box], [(16, 1204)])
    assert wanted.min() == 0
    assert wanted.max() == 1
    found = CanvasRoIAlign(5, 2.0)({"0": features.bfloat16()}, [box], [(16, 1204)])
    torch.testing.assert_close(found.float(), wanted, atol=0.01, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_canvases_are_never_resized(training: bool) -> None:
    transform = CanvasTransform((0.5,), (0.25,)).train(training)
    batch, boxes = torch.rand(2, 1, 30, 44), targets(1, 0)
    for images in (batch, list(batch)):
        out, kept = transform(images, boxes)
        assert torch.allclose(out.tensors, (batch - 0.5) / 0.25)
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
def test_any_picture_size_is_fine(size: tuple[int, int]) -> None:
    network = PaperFasterRCNN(10).eval()
    found, kept = detect(network, torch.rand(1, 1, *size))
    assert kept is not None
    assert len(kept[0]) >= 1
    for boxes in (found[0]["boxes"], kept[0]):
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()


# ------------------------------------------------------------------ coordinates


def coord_layers(network: nn.Module) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, CoordConv2d)]


@pytest.mark.parametrize("protocol", ["two_stage", "proposals"])
@pytest.mark.parametrize(("coords", "channels"), [("xy", 2), ("xyr", 3)])
def test_coordinates_reach_the_three_layers_the_paper_names(protocol: str, coords: Coords, channels: int) -> None:
    network = build_network("paper", protocol=protocol)  # type: ignore[arg-type]  # parametrised
    before = sum(p.numel() for p in network.parameters())
    add_coords(network, coords)
    assert coord_layers(network) == ["backbone.conv1", "rpn.head.shared", "rpn.head.box_out"]
    added = sum(p.numel() for p in network.parameters()) - before
    assert added == channels * (32 * 25 + 32 * 9 + 36)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("first", ["backbone.conv1"]),
        ("box_out", ["rpn.head.box_out"]),
        (r"conv1|shared", ["backbone.conv1", "rpn.head.shared"]),
    ],
)
def test_layers_can_be_chosen(where: str, expected: list[str]) -> None:
    network = build_network("paper")
    add_coords(network, "xy", where)
    assert coord_layers(network) == expected


def test_arms_share_all_image_weights_at_the_same_seed() -> None:
    arms = {}
    for coords in ("none", "xy"):
        torch.manual_seed(3)
        arms[coords] = build_network("paper")
        add_coords(arms[coords], coords)
    plain, with_coords = (arm.state_dict() for arm in arms.values())
    assert all(torch.equal(value, with_coords[name]) for name, value in plain.items())
    only = {name: value for name, value in with_coords.items() if name not in plain}
    assert sorted(only) == [
        f"{name}.coord_weight" for name in ("backbone.conv1", "rpn.head.box_out", "rpn.head.shared")
    ]
    assert not only["rpn.head.box_out.coord_weight"].any(), "the last box layer starts at zero"
    for name, fan_in in (("backbone.conv1", 3 * 25), ("rpn.head.shared", 66 * 9)):
        weight = only[f"{name}.coord_weight"]
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.15)


def test_zero_start_gives_the_plain_network_at_first() -> None:
    images = torch.rand(2, 1, 64, 64)
    torch.manual_seed(0)
    plain = build_network("paper", protocol="proposals")
    expected = plain(images)[0]
    add_coords(plain, "xyr", init="zero")
    assert coord_layers(plain)
    assert torch.allclose(plain(images)[0], expected, atol=1e-5)


def test_none_changes_nothing() -> None:
    network = build_network("paper")
    add_coords(network, "none", "no such layer")
    assert coord_layers(network) == []


# ------------------------------------------------------------------ torchvision's networks by name


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"'fasterrcnn_resnet5_fpn' is unknown; closest: faster") as e:
        build_network("fasterrcnn_resnet5_fpn")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="closest: paper"):
        build_network("papr")
    with pytest.raises(ValueError, match="ssd300_vgg16"):
        build_network("#")
    with pytest.raises(ValueError, match="is unknown"):
        build_network("maskrcnn_resnet50_fpn")  # trains on masks, which canvases have not
    with pytest.raises(ValueError, match="proposals"):
        build_network("ssd300_vgg16", protocol="proposals")
    with pytest.raises(ValueError, match="network_args"):
        build_network("paper", network_args={"min_size": 64})
    with pytest.raises(ValueError, match="no_such_argument"):
        build_network("fasterrcnn_mobilenet_v3_large_fpn", network_args={"no_such_argument": 1})


def test_every_torchvision_detector_on_boxes_is_known() -> None:
    names = torchvision_detectors()
    assert {"fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16"} <= set(names)
    assert not any(name.startswith(("mask", "keypoint")) for name in names)


@pytest.mark.parametrize(
    ("name", "args", "first"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"min_size": 64}, "backbone.body.0.0"),
        ("ssdlite320_mobilenet_v3_large", {}, "backbone.features.0.0.0"),
    ],
)
def test_torchvision_networks_train_and_detect_with_coordinates(name: str, args: dict[str, int], first: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, num_classes=10, network_args=args)
    add_coords(network, "xy")
    assert coord_layers(network) == [first]
    images = torch.rand(2, 1, 64, 64)
    losses = network(as_input(network, images), targets(2, 0))
    torch.stack(list(losses.values())).sum().backward()
    layer = network.get_submodule(first)
    assert layer.coord_weight.grad is not None
    found, kept = detect(network.eval(), images)
    assert len(found) == 2
    assert (kept is not None) == name.startswith("fasterrcnn")
    for boxes in kept or []:
        assert (boxes >= 0).all()
        assert (boxes <= 64 + 1e-3).all(), "in canvas pixels, whatever the network resizes to"


# ------------------------------------------------------------------ the authors' protocol


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * 45
    return torch.cat((corner, corner + 10 + torch.rand(*shape, 2, generator=generator) * 12), dim=-1)


def test_decode_and_encode_are_torchvisions_and_inverse() -> None:
    anchors = random_boxes(50)
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) * 0.5
    moved = box_math.decode(deltas, anchors)
    coder = tv_utils.BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert torch.allclose(moved, coder.decode_single(deltas, anchors), atol=1e-4)
    assert torch.allclose(box_math.encode(moved, anchors), deltas, atol=1e-4)
    assert torch.allclose(box_math.encode(moved, anchors), coder.encode_single(moved, anchors), atol=1e-4)
    huge = box_math.decode(torch.full((50, 4), 1e4), anchors)
    assert huge.isfinite().all()


def test_pairwise_iou_equals_torchvision() -> None:
    boxes, truth = random_boxes(3, 40), random_boxes(3, 5, seed=1)
    for got, b, t in zip(box_math.pairwise_iou(boxes, truth), boxes, truth, strict=True):
        assert torch.allclose(got, box_iou(b, t), atol=1e-6)
    assert not box_math.pairwise_iou(boxes, torch.zeros(3, 5, 4)).any()


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
    padded, real = box_math.pad_boxes(truth)
    expected = [loop_candidates(b, t, (64, 64)) for b, t in zip(boxes, truth, strict=True)]
    drawn_positive: list[set[tuple[int, int]]] = [set() for _ in counts]
    drawn_negative: list[set[int]] = [set() for _ in counts]
    torch.manual_seed(0)
    for _ in range(300):
        chosen = proposals.sample(boxes, padded, real, (64, 64))
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
    chosen = proposals.sample(boxes, truth, torch.ones(1, 1, dtype=torch.bool), (64, 64))
    assert chosen.positive_box.tolist() == [0]
    assert sorted(chosen.negative_box.tolist()) == [1, 2]


def test_boxes_are_matched_after_they_moved() -> None:
    """An anchor far from the true box counts as positive once its deltas carry it there."""
    anchors = torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0]])
    truth = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    deltas = torch.tensor([[[2.0, 2.0, 0.0, 0.0], [-2.0, -2.0, 0.0, 0.0]]])  # they change places
    losses = proposals.proposal_losses(torch.zeros(1, 2), deltas, anchors, [truth], (64, 64))
    # Positive is the second anchor, with no distance left to its target.
    assert float(losses["box_loss"]) == 0.0
    stay = proposals.proposal_losses(torch.zeros(1, 2), deltas * 0, anchors, [truth], (64, 64))
    assert float(stay["box_loss"]) == 0.0


def test_losses_equal_their_formulas() -> None:
    """With few enough candidates nothing is left to chance."""
    anchors = torch.tensor([[10.0, 10.0, 30.0, 30.0], [40.0, 40.0, 60.0, 60.0], [40.0, 0.0, 60.0, 20.0]])
    truth = torch.tensor([[12.0, 10.0, 32.0, 30.0]])
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    logits = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    losses = proposals.proposal_losses(logits, deltas, anchors, [truth], (64, 64))
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
    together = proposals.proposal_losses(logits, deltas, anchors, truth, (64, 64))
    for name, value in together.items():
        alone = [
            proposals.proposal_losses(logits[i : i + 1], deltas[i : i + 1], anchors, truth[i : i + 1], (64, 64))
            for i in range(3)
        ]
        assert float(value) == pytest.approx(sum(float(a[name]) for a in alone) / 3, rel=1e-5)


def test_smooth_l1_is_the_authors() -> None:
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    assert torch.equal(proposals.smooth_l1(x), torch.tensor([3.0, 0.25, 0.0, 0.25, 1.0, 2.0]))


@pytest.mark.parametrize("spread", [0.0, 1.0, 40.0])
def test_selection_equals_full_suppression_then_the_best_ten(spread: float) -> None:
    """Also when all boxes are alike, so that the shortlist is not enough."""
    boxes = random_boxes(900, seed=4) * min(spread / 40, 1.0) + torch.tensor([0.0, 0.0, 30.0, 30.0])
    scores = torch.rand(900, generator=torch.Generator().manual_seed(5))
    kept = box_math.select_proposals(boxes, scores)
    assert torch.equal(kept, nms(boxes, scores, 0.8)[:10])


def test_proposals_keep_within_the_canvas_best_first() -> None:
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 500), torch.randn(2, 500, 4) * 0.3
    results = proposals.propose(logits, deltas, random_boxes(500), (64, 64))
    for result in results:
        assert len(result["boxes"]) == 10
        assert (result["boxes"] >= 0).all()
        assert (result["boxes"] <= 64).all()
        assert (result["scores"].diff() <= 0).all()
        overlap = box_iou(result["boxes"], result["boxes"]).fill_diagonal_(0)
        assert overlap.max() <= 0.8
    away = proposals.propose(logits[:, :1], torch.full((2, 1, 4), 50.0), random_boxes(1), (64, 64))
    assert all(len(result["boxes"]) == 0 for result in away), "nothing of the box is on the canvas"


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
        losses = proposals.proposal_losses(logits, deltas, anchors, [truth], (64, 64))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        logits, deltas, anchors = network(image)
        (result,) = proposals.propose(logits, deltas, anchors, (64, 64))
    assert box_iou(truth, result["boxes"])[0, 0] > 0.7

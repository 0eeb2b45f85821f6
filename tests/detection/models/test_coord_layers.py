"""Which layers get coordinates, and their initial weights."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from coordconv_apps.nn.convert import coordconv_layers
from coordconv_apps.nn.coords import Coords
from detection.models.coord_layers import add_coords
from detection.models.detectors import build_detector
from detection.models.paper_faster_rcnn import ProposalNetwork


@pytest.mark.parametrize("build", [build_detector, ProposalNetwork])
@pytest.mark.parametrize(("coords", "channels"), [("xy", 2), ("xyr", 3)])
def test_coordinates_reach_the_three_layers_the_paper_names(
    build: Callable[[], nn.Module], coords: Coords, channels: int
) -> None:
    network = build()
    before = sum(p.numel() for p in network.parameters())
    add_coords(network, coords)
    assert list(coordconv_layers(network)) == ["backbone.conv1", "rpn.head.shared", "rpn.head.box_out"]
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
    network = build_detector("paper")
    add_coords(network, "xy", where)
    assert list(coordconv_layers(network)) == expected


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", {"rpn.head.conv.0.0"}),
        ("retinanet_resnet50_fpn", {"head.classification_head.conv.0.0", "head.regression_head.conv.0.0"}),
        ("fcos_resnet50_fpn", {"head.classification_head.conv.0", "head.regression_head.conv.0"}),
    ],
)
def test_coordinates_in_the_pyramid_and_the_head(name: str, head: set[str]) -> None:
    with torch.device("meta"):  # no weights are needed
        network = build_detector(name)
        add_coords(network, "xy", "fpn_and_head", init="zero")
    chosen = coordconv_layers(network)
    pyramid = {layer for layer in chosen if layer.startswith("backbone.fpn.inner_blocks.")}
    assert len(pyramid) == (2 if "mobilenet" in name else 3), "one for each map of the backbone"
    assert chosen.keys() - pyramid == head
    assert {chosen[layer].kernel_size for layer in pyramid} == {(1, 1)}
    assert {chosen[layer].kernel_size for layer in head} == {(3, 3)}


@pytest.mark.parametrize("name", ["paper", "ssdlite320_mobilenet_v3_large"])
def test_networks_without_a_pyramid_say_so(name: str) -> None:
    message = "^coord_layers=fpn_and_head: this network has no feature pyramid; choose first or all$"
    with pytest.raises(ValueError, match=message):
        add_coords(build_detector(name), "xy", "fpn_and_head")


def test_arms_share_all_image_weights_at_the_same_seed() -> None:
    arms = {}
    for coords in ("none", "xy"):
        torch.manual_seed(3)
        arms[coords] = build_detector("paper")
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
    plain = ProposalNetwork()
    expected = plain(images)[0]
    add_coords(plain, "xyr", init="zero")
    assert coordconv_layers(plain)
    assert torch.allclose(plain(images)[0], expected, atol=1e-5)


def test_coords_none_changes_nothing() -> None:
    network = build_detector("paper")
    add_coords(network, "none", "no such layer")
    assert list(coordconv_layers(network)) == []

"""Torchvision's detectors by name, with coordinates."""

import pytest
import torch

from coordconv_apps.nn.convert import coordconv_layers
from detection.models.coord_layers import add_coords
from detection.models.detectors import as_input, build_detector, detect, torchvision_detectors
from tests.detection.inputs import targets


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"'fasterrcnn_resnet5_fpn' is unknown; closest: faster") as e:
        build_detector("fasterrcnn_resnet5_fpn")
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="closest: paper"):
        build_detector("papr")
    with pytest.raises(ValueError, match="ssd300_vgg16"):
        build_detector("#")
    with pytest.raises(ValueError, match="is unknown"):
        build_detector("maskrcnn_resnet50_fpn")  # trains on masks, which canvases have not
    with pytest.raises(ValueError, match="network_args"):
        build_detector("paper", network_args={"min_size": 64})
    with pytest.raises(ValueError, match="no_such_argument"):
        build_detector("fasterrcnn_mobilenet_v3_large_fpn", network_args={"no_such_argument": 1})


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
    network = build_detector(name, num_classes=10, network_args=args)
    add_coords(network, "xy")
    assert list(coordconv_layers(network)) == [first]
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


def test_what_is_found_in_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    torch.manual_seed(0)
    network = build_detector("fasterrcnn_mobilenet_v3_large_320_fpn", num_classes=3, network_args={"min_size": 64})
    add_coords(network.eval(), "xy")
    images = [torch.rand(3, *size) for size in ((30, 90), (40, 60), (30, 90), (60, 40))]
    found, kept = detect(network, images)
    assert kept is not None
    for image, own, proposals in zip(images, found, kept, strict=True):
        ((alone,), proposals_alone) = detect(network, [image])
        assert proposals_alone is not None
        torch.testing.assert_close(own["boxes"], alone["boxes"], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(proposals, proposals_alone[0], rtol=1e-4, atol=1e-3)

"""Coordinates in batches that torchvision pads: each image has its own."""

import pytest
import torch
from torch import Tensor, nn

from coordconv_apps import CoordConv2d
from detection.models.coord_layers import add_coords
from detection.models.detectors import build_detector, detect
from detection.models.image_coords import image_coords


def coordinate_parts(network: nn.Module, layer: CoordConv2d, images: list[Tensor]) -> Tensor:
    """Run a detector and return what a layer adds to its features, by an image weight of zero."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))
    with torch.no_grad(), image_coords(network):
        network(images)
    hook.remove()
    return seen[0]


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    network = build_detector(
        "fasterrcnn_mobilenet_v3_large_320_fpn", num_classes=2, network_args={"min_size": 64, "max_size": 256}
    ).eval()
    add_coords(network, "xy", where="fpn_and_head")
    return network


def test_an_image_has_the_coordinates_that_it_has_alone(detector: nn.Module) -> None:
    layer = detector.get_submodule("backbone.fpn.inner_blocks.0.0")
    assert isinstance(layer, CoordConv2d)
    with torch.no_grad():
        layer.weight.zero_()
        layer.coord_weight.fill_(1.0)  # the output is x + y
        assert layer.bias is not None
        layer.bias.zero_()
    small, wide = torch.rand(3, 64, 64), torch.rand(3, 64, 256)  # neither is resized, small is padded to the right
    alone = coordinate_parts(detector, layer, [small])
    small_padded, wide_padded = coordinate_parts(detector, layer, [small, wide])
    side = alone.shape[-1]
    torch.testing.assert_close(small_padded[:, :, :side], alone[0])
    torch.testing.assert_close(alone[0, 0, -1, -1], torch.tensor(2.0))
    torch.testing.assert_close(wide_padded[0, -1, -1], torch.tensor(2.0))
    assert small_padded[0, -1, -1] > 4  # coordinates continue in the padding
    assert layer.window is None, "the context ends"


def test_detectors_without_coordinates_or_transform_run_as_they_are() -> None:
    plain = nn.Conv2d(1, 1, 1)
    with image_coords(plain):
        assert plain(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)
    network = build_detector("ssdlite320_mobilenet_v3_large", num_classes=2).eval()
    assert len(detect(network, [torch.zeros(3, 40, 60)]).detections) == 1

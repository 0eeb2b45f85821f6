"""RoIAlign of the paper's feature map: against torchvision's, at the border, in half precision."""

import torch
from torchvision.ops import roi_align

from detection.models.roi_align import CanvasRoIAlign
from tests.detection.inputs import random_boxes


def test_roi_align_pools_where_the_positions_lie() -> None:
    """On a map that holds each position's own coordinates, pooling a box gives coordinates within the box."""
    for first_centre in (2.0, 8.0):
        at = torch.arange(13.0) * 4 + first_centre
        y, x = torch.meshgrid(at, at, indexing="ij")
        box = torch.tensor([[14.0, 18.0, 34.0, 28.0]])
        pooled = CanvasRoIAlign(5, first_centre, 4)({"0": torch.stack((x, y))[None]}, [box], [(64, 64)])
        assert torch.allclose(pooled[0, 0], torch.tensor([16.0, 20, 24, 28, 32]).expand(5, 5), atol=1e-4)
        assert torch.allclose(pooled[0, 1], torch.tensor([19.0, 21, 23, 25, 27])[:, None].expand(5, 5), atol=1e-4)


def test_roi_align_equals_torchvisions() -> None:
    """Values and gradients, for boxes within, across and beyond the border, and images with none."""
    features = torch.randn(3, 8, 13, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = [random_boxes(6).double() - 5, torch.zeros(0, 4).double(), random_boxes(7, seed=1).double() * 2]
    results, gradients = [], []
    for pool in (
        CanvasRoIAlign(5, 8.0, 4),
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
    wanted = CanvasRoIAlign(5, 2.0, 4)({"0": features}, [box], [(16, 1204)])
    assert wanted.min() == 0
    assert wanted.max() == 1
    found = CanvasRoIAlign(5, 2.0, 4)({"0": features.bfloat16()}, [box], [(16, 1204)])
    torch.testing.assert_close(found.float(), wanted, atol=0.01, rtol=0)

"""The distributions of initial weights, and the order in which they are drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from coordconv_apps import CoordConv1d, CoordConv2d, CoordConvTranspose2d
from coordconv_apps.nn.init import he_normal_, narrow_normal_


@pytest.mark.parametrize(("gain", "coord_gain"), [(1.0, 1.0), (0.3, 0.5)])
@pytest.mark.parametrize("coords_last", [False, True])
def test_weights_are_he_normal(gain: float, coord_gain: float, coords_last: bool) -> None:
    layers: dict[nn.Module, float] = {  # and the number of inputs that each output sees
        nn.Linear(120, 80): 120,
        nn.Conv2d(16, 96, 3): 16 * 9,
        nn.Conv2d(16, 96, (5, 2), groups=2): 8 * 10,
        CoordConv2d(2, 900, 3, coords="xy"): 4 * 9,
        CoordConv2d(2, 900, 3, coords="xyr"): 5 * 9,
        # With a stride of two along both axes, an output sees a quarter of the kernel.
        nn.ConvTranspose2d(16, 48, 4, 2): 16 * 4,
        nn.ConvTranspose2d(16, 96, 3, 2): 16 * 9 / 4,
        CoordConvTranspose2d(2, 900, 4, 2, coords="xy"): 4 * 4,
        CoordConvTranspose2d(2, 900, 4, 2, coords="xyr"): 5 * 4,
        CoordConv1d(1, 6000, 3, coords="x"): 2 * 3,
        nn.ConvTranspose3d(16, 48, 2, 2): 16,
    }
    torch.manual_seed(0)
    he_normal_(nn.ModuleList(layers), gain, coord_gain, coords_last=coords_last)
    for layer, fan_in in layers.items():
        for name, parameter in layer.named_parameters():
            expected = gain * math.sqrt(2 / fan_in) * (coord_gain if name == "coord_weight" else 1)
            if name == "bias":
                assert not parameter.any(), layer
                continue
            assert parameter.numel() >= 6000, "enough to tell"
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), (layer, name)
            assert abs(parameter.mean().item()) < 0.05 * expected, (layer, name)
            beyond = (parameter.abs() > 2 * expected).float().mean().item()
            assert beyond == pytest.approx(0.0455, abs=0.012), (layer, name)


def test_he_normal_draws_weights_in_a_fixed_order() -> None:
    network = nn.Sequential(CoordConv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False))
    weights = [network.get_parameter(name) for name in ("0.weight", "0.coord_weight", "2.weight")]

    def check_order(order: list[int], fan_ins: list[int]) -> None:
        torch.manual_seed(1)
        for index in order:
            expected = torch.randn_like(weights[index]) * math.sqrt(2 / fan_ins[index])
            torch.testing.assert_close(weights[index].detach(), expected)

    torch.manual_seed(1)
    he_normal_(network)
    check_order([0, 1, 2], [45, 45, 4])
    torch.manual_seed(1)
    he_normal_(network, coords_last=True)
    check_order([0, 2, 1], [45, 45, 4])


def test_coordinates_may_start_at_zero() -> None:
    torch.manual_seed(0)
    layer = CoordConv2d(20, 50, 3, coords="xyr")
    he_normal_(layer, 0.5, 0.0)
    assert not layer.coord_weight.any()
    assert layer.weight.std().item() == pytest.approx(0.5 * math.sqrt(2 / (23 * 9)), rel=0.05)


def test_narrow_normal_draws_weights_with_deviation_0_02() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(CoordConv2d(30, 1500, 3), nn.BatchNorm2d(1500), CoordConvTranspose2d(1500, 4, 3))
    torch.manual_seed(1)
    narrow_normal_(network)
    torch.manual_seed(1)
    for name in ("0.weight", "1.weight", "2.weight", "0.coord_weight", "2.coord_weight"):
        parameter = network.get_parameter(name)
        drawn = torch.empty_like(parameter).normal_(1.0 if name == "1.weight" else 0.0, 0.02)
        assert torch.equal(parameter, drawn), name
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))

"""The map as rows and columns: equal to the whole map for every geometry, and used where the whole one is too large."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coordconv_apps import CoordConv2d, Coordinates, coord_window, measure_strides
from coordconv_apps.nn import coord_layer
from tests.nn.reference import concatenated
from tests.nn.test_cached_map import convolutions

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "padding": 2, "stride": 3},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 7, "padding": 3, "stride": 2, "bias": False},
    {"kernel_size": 5, "padding": "valid", "stride": (1, 2)},
    {"kernel_size": 4, "padding": "same", "dilation": (2, 1), "groups": 2},
    {"kernel_size": (3, 5), "padding": (2, 0), "stride": (2, 3), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": (0, 4), "stride": (4, 1)},
]
ALL_COORDS: list[str | Coordinates] = ["xy", "x", "y", Coordinates("xy", range=(0, 1), align_corners=False)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch, about its own copy
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_rows_and_columns_add_up_to_the_map(
    geometry: dict[str, Any], channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coord_layer, "is_small", lambda nbytes, batch: nbytes != batch.nbytes)  # not a whole map
    torch.manual_seed(0)
    for coords in ALL_COORDS:
        layer: Any = CoordConv2d(4, 6, **geometry, coords=coords, dtype=torch.float64).eval()
        measure_strides(layer, (1, 4, 24, 24))
        for size in [(21, 26), (22, 25), (23, 24), (9, 30), (30, 9)]:
            x = torch.randn(1, 4, *size, dtype=torch.float64)
            batch = torch.randn(2, 4, *size, dtype=torch.float64)
            if channels_last:
                layer.to(memory_format=torch.channels_last)
                x, batch = (t.contiguous(memory_format=torch.channels_last) for t in (x, batch))
            counts = [convolutions(layer, x) for _ in range(2)]
            if min(size) > 20:
                assert counts == [1 + len(layer.coord_weight[0]), 1], "rows and columns are computed once"
            else:
                assert counts in ([1 + len(layer.coord_weight[0]), 1], [2, 2]), "or the whole map in every call"
            with torch.no_grad():
                y = layer(x)
            torch.testing.assert_close(y, layer(x))  # with gradients, the whole map is computed
            with coord_window(layer, torch.tensor([[3, -5], [0, 40]]), torch.tensor([[40, 44], [64, 70]])):
                with torch.no_grad():
                    y = layer(batch)
                assert y.stride() == layer(batch).stride()
                torch.testing.assert_close(y, layer(batch))
            with coord_window(layer, torch.tensor([3, -5]), (64, 70)):
                with torch.no_grad():
                    y = layer(x)
                torch.testing.assert_close(y, layer(x))


@pytest.mark.parametrize(
    "options",
    [{"coords": "xyr"}, {"coords": Coordinates("xy", function=torch.sin)}, {"padding_mode": "reflect", "padding": 1}],
)
def test_other_maps_are_computed_as_a_whole(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coord_layer, "is_small", lambda nbytes, batch: False)
    layer = CoordConv2d(3, 4, 3, dtype=torch.float64, **options).eval()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    assert convolutions(layer, x) == 2
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.train()(x))


def test_half_precision_is_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coord_layer, "is_small", lambda nbytes, batch: False)
    layer = CoordConv2d(3, 4, 1).eval()
    x = torch.randn(1, 3, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolutions(layer, x) == 2
    assert convolutions(layer.bfloat16(), x.bfloat16()) == 2


def test_a_frozen_layer_passes_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coord_layer, "is_small", lambda nbytes, batch: nbytes < batch.nbytes)
    layer = CoordConv2d(3, 4, 3, padding=1, dtype=torch.float64).eval().requires_grad_(False)
    x = torch.randn(1, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    gradients = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, lambda x: concatenated(layer, x))]
    torch.testing.assert_close(*gradients)

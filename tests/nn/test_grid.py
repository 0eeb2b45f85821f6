"""`Coordinates`: which channels, which range, where positions lie, and functions of the user's own."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coordconv_apps import AddCoords, CoordConv2d, CoordConv3d, Coordinates, coordconv_layers, fold, to_coordconv
from coordconv_apps.nn.coords import as_coordinates, layer_coords
from tests.nn.networks import UNet, sequence_network, volume_network


def positions(size: int, low: float, high: float, align_corners: bool) -> list[float]:
    """The coordinate of each pixel, by the definition of ``align_corners``."""
    if size == 1:
        return [(low + high) / 2]
    share = [i / (size - 1) if align_corners else (i + 0.5) / size for i in range(size)]
    return [low + (high - low) * s for s in share]


@pytest.mark.parametrize("channels", ["x", "y", "r", "xy", "xr", "yr", "xyr"])
@pytest.mark.parametrize("limits", [(-1, 1), (0, 1), (-0.5, 2.0)])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (1, 1)])
def test_coordinates_follow_channels_range_and_align_corners(
    channels: str, limits: tuple[float, float], align_corners: bool, size: tuple[int, int]
) -> None:
    low, high = limits
    ys, xs = (torch.tensor(positions(n, low, high, align_corners), dtype=torch.float64) for n in size)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    centre = (low + high) / 2
    channel = {"x": x, "y": y, "r": ((x - centre) ** 2 + (y - centre) ** 2).sqrt()}
    grid = Coordinates(channels, limits, align_corners).grid(size, dtype=torch.float64)
    torch.testing.assert_close(grid, torch.stack([channel[c] for c in channels]), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("channels", "size"), [("r", ()), ("xy", (5,)), ("x", (2, 3, 4, 5))])
def test_a_grid_has_the_axes_of_its_channels(channels: str, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^size={re.escape(str(size))} has {len(size)} axes; channels='{channels}'"):
        Coordinates(channels).grid(size)


def polar(grid: Tensor) -> Tensor:
    x, y = grid
    return torch.stack([torch.hypot(x, y), torch.atan2(y, x), x * y])


CHOICES: list[str | Coordinates] = [
    "y",
    Coordinates("r", range=(0, 1)),
    Coordinates("xyr", range=(0, 1), align_corners=False),
    Coordinates("xy", function=polar),
]


@pytest.mark.parametrize("coords", CHOICES)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_equals_concatenation(coords: str | Coordinates, transposed: bool) -> None:
    """With the paper's picture of the layer: `AddCoords`, then torch's convolution over all channels."""
    torch.manual_seed(0)
    plain = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer: Any = to_coordconv(plain(3, 4, 3, stride=2, padding=1).double(), coords=coords, init="default")
    count, axis = as_coordinates(coords).count(2), 0 if transposed else 1
    assert layer.coord_weight.shape[axis] == count
    whole: Any = plain(3 + count, 4, 3, stride=2, padding=1).double()
    whole.weight = nn.Parameter(torch.cat([layer.weight, layer.coord_weight], dim=axis))
    whole.bias = layer.bias
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    expected = whole(AddCoords(coords, ndim=2)(x))
    for training in (True, False):
        layer.train(training)
        with torch.set_grad_enabled(training):
            torch.testing.assert_close(layer(x), expected)
            torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(fold(layer, x.shape)(x), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other: Any = to_coordconv(plain(3, 4, 3, stride=2, padding=1).double(), coords=coords)
    other.load_state_dict(torch.load(file, weights_only=True))
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.coords == coords
        torch.testing.assert_close(twin(x), expected)


def test_coordinates_are_saved_as_plain_values() -> None:
    for coords in (Coordinates("y", align_corners=False), *CHOICES[1:3]):
        assert isinstance(coords, Coordinates)
        fields = json.loads(json.dumps(coords.as_dict()))
        assert as_coordinates(fields) == Coordinates(**fields) == coords
        assert CoordConv2d(1, 2, 3, coords=fields).coords == coords
        file = io.BytesIO()
        torch.save(coords.as_dict(), file)
        file.seek(0)
        assert Coordinates(**torch.load(file, weights_only=True)) == coords
    with pytest.raises(
        ValueError, match=r"^function=polar is not a plain value; save the other fields and pass the func"
    ):
        as_coordinates(CHOICES[3]).as_dict()
    assert "coords=Coordinates(channels='r', range=(0.0, 1.0)" in repr(CoordConv2d(1, 2, 3, coords=CHOICES[1]))
    for name in ("y", "xr", "xyr"):  # what has a short name is called by it
        for given in (name, Coordinates(name), {"channels": name, "range": [-1, 1]}, Coordinates(name).as_dict()):
            layer = CoordConv2d(1, 2, 3, coords=given)
            assert layer.coords == layer_coords(given, 2) == name
            assert repr(layer).endswith(f"coords={name!r})")
            assert AddCoords(given, ndim=2).coords == name


def test_layers_get_the_channels_of_their_axes() -> None:
    for make, channels in [(sequence_network, "xr"), (UNet, "xyr"), (volume_network, "xyzr")]:
        model = to_coordconv(make(), "all", coords=Coordinates("xyr", range=(0, 1)))
        assert {layer.coords for layer in coordconv_layers(model).values()} == {Coordinates(channels, range=(0, 1))}
    layer = CoordConv3d(1, 2, 1, coords=Coordinates("xz"))
    assert layer.coord_weight.shape[1] == 2
    model = sequence_network()
    with pytest.raises(ValueError, match="channels='y' needs 2 spatial axes; the layer has 1"):
        to_coordconv(model, "all", coords=Coordinates("y", range=(0, 1)))
    with pytest.raises(ValueError, match="coords='y' needs 2 spatial axes; with 1, it must be letters of 'xr'"):
        to_coordconv(model, "all", coords="y")
    assert not coordconv_layers(model)
    model = to_coordconv(volume_network(), "all", coords="yz")
    assert {layer.coords for layer in coordconv_layers(model).values()} == {"yz"}
    assert AddCoords("z")(torch.zeros(1, 1, 2, 3, 4)).shape == (1, 2, 2, 3, 4)
    assert AddCoords("y", ndim=3)(torch.zeros(1, 2, 3, 4)).shape == (2, 2, 3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": "yx"}, "channels='yx' must be letters of 'xyzr', each once and in this order"),
        ({"channels": ""}, "channels='' must be letters"),
        ({"channels": ["x"]}, "channels=['x'] must be letters"),
        ({"range": (1, 0)}, "range=(1, 0) must be two finite numbers, the smaller one first, such as (0, 1)"),
        ({"range": 1}, "range=1 must be two finite numbers"),
        ({"range": (0, float("inf"))}, "range=(0, inf) must be two finite numbers"),
        ({"align_corners": "edges"}, "align_corners='edges' must be True or False"),
        ({"function": "polar"}, "function='polar' must be a function of the grid, or None"),
        ({"corners": True}, "'corners' is not one of 'channels', 'range', 'align_corners', 'function'"),
        ({"function": lambda grid: grid.mean()}, "function=<lambda> returned () for a tensor of shape (2, 1, 3, 2)"),
        ({"function": lambda grid: 1}, "returned int for a tensor of shape (2, 1, 3, 2); it must return (K, 1, 3, 2)"),
    ],
)
def test_invalid_coordinates_are_refused(fields: dict[str, Any], message: str) -> None:
    model = UNet()
    with pytest.raises(ValueError, match=re.escape(message)):
        CoordConv2d(3, 4, 3, coords=fields)
    with pytest.raises(ValueError, match=re.escape(message)):
        to_coordconv(model, coords=fields)
    assert not coordconv_layers(model)
    for coords in (3, None):
        with pytest.raises(ValueError, match=f"coords={coords!r} must be letters of"):
            CoordConv2d(3, 4, 3, coords=coords)  # type: ignore[arg-type]  # wrong on purpose

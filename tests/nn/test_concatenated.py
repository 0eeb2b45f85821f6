"""Checkpoints of layers that concatenate: the outputs of ports, written here as they are, equal ours."""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coordconv_apps import AddCoords, CoordConv1d, CoordConv2d, CoordConvTranspose2d, Coordinates, to_coordconv
from coordconv_apps.nn.concatenated import ConcatenatedLayout, export_concatenated, import_concatenated


class Port(nn.Module):
    """A concatenating layer as several public ports write it; each option is a peculiarity of one of them."""

    def __init__(
        self, conv: Any, coords_first: bool, swapped: bool, low: float, radius: tuple[float, float] | None  # noqa: ANN401
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv, self.coords_first, self.swapped, self.low, self.radius = conv, coords_first, swapped, low, radius

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        rows = (torch.arange(height, dtype=x.dtype) / (height - 1) * (1 - self.low) + self.low).view(1, 1, -1, 1)
        columns = (torch.arange(width, dtype=x.dtype) / (width - 1) * (1 - self.low) + self.low).view(1, 1, 1, -1)
        rows, columns = rows.expand(batch, 1, height, width), columns.expand(batch, 1, height, width)
        added = [rows, columns] if self.swapped else [columns, rows]
        if self.radius is not None:
            centre, factor = self.radius
            added.append(factor * torch.sqrt((rows - centre) ** 2 + (columns - centre) ** 2))
        y: Tensor = self.conv(torch.cat([*added, x] if self.coords_first else [x, *added], dim=1))
        return y


# The layout of a port, the lower end of its range, and its radius: the centre and a factor.
PORTS: dict[str, tuple[ConcatenatedLayout, float, tuple[float, float] | None]] = {
    "as ours": (ConcatenatedLayout("xy"), -1, None),
    "rows first, r from 0.5": (ConcatenatedLayout("yxr", radius_centre=0.5), -1, (0.5, 1)),
    "rows first, r from the centre": (ConcatenatedLayout("yxr"), -1, (0, 1)),
    "coordinates first": (ConcatenatedLayout("xy", coords_first=True), -1, None),
    "[0, 1]": (ConcatenatedLayout("xyr", range=(0, 1)), 0, (0.5, 1)),
    "[0, 1], first, r doubled": (
        ConcatenatedLayout("yxr", coords_first=True, range=(0, 1), radius_factor=2), 0, (0.5, 2)
    ),
}  # fmt: skip


def port_and_ours(name: str, kind: Any = nn.Conv2d, coords: Any = None, **options: Any) -> tuple[nn.Module, nn.Module]:  # noqa: ANN401
    """A network with two layers of a port, and one with CoordConv layers in their places, random weights in both."""
    layout, low, radius = PORTS[name]
    torch.manual_seed(0)
    count = len(layout.channels)
    shapes = ((3, 4), (4, 2))
    convs = [kind(a + count, b, 3, **options) for a, b in shapes]
    swapped = layout.channels.startswith("y")
    ports = [Port(conv, layout.coords_first, swapped, low, radius) for conv in convs]
    port = nn.Sequential(ports[0], nn.BatchNorm2d(4), nn.Tanh(), ports[1])
    ours = nn.Sequential(kind(3, 4, 3, **options), nn.BatchNorm2d(4), nn.Tanh(), kind(4, 2, 3, **options))
    to_coordconv(ours, "all", coords or layout.coordinates, init="default")
    return port.double(), ours.double()


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("name", PORTS)
def test_a_port_s_checkpoint_gives_its_outputs_and_goes_back(name: str, kind: Any) -> None:  # noqa: ANN401
    layout = PORTS[name][0]
    port, ours = port_and_ours(name, kind, stride=2, padding=1)
    theirs = copy.deepcopy(port.state_dict())
    assert ours.load_state_dict(import_concatenated(ours, theirs, layout)) == ([], [])
    x = torch.randn(2, 3, 11, 14, dtype=torch.float64)
    torch.testing.assert_close(ours(x), port(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(ours))(x), port(x))
    back = export_concatenated(ours, layout)
    assert back.keys() == theirs.keys()
    for key, value in theirs.items():
        if "num_batches" not in key and "running" not in key:
            torch.testing.assert_close(back[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "valid"}])
def test_another_range_is_exact_without_zero_padding(options: dict[str, Any]) -> None:
    layout = ConcatenatedLayout("xyr", range=(0, 1))
    port, ours = port_and_ours("[0, 1]", coords="xyr", **options)
    ours.load_state_dict(import_concatenated(ours, port.state_dict(), layout))
    x = torch.randn(2, 3, 11, 14, dtype=torch.float64)
    torch.testing.assert_close(ours(x), port(x))
    port.load_state_dict({k: torch.zeros_like(v) for k, v in port.state_dict().items() if "weight" in k}, strict=False)
    port.load_state_dict(export_concatenated(ours, layout))
    torch.testing.assert_close(ours(x), port(x))


def test_another_range_with_zero_padding_is_refused_or_exact_inside() -> None:
    layout = ConcatenatedLayout("xyr", range=(0, 1))
    port, ours = port_and_ours("[0, 1]", coords="xyr", padding=1)
    message = "layer '0': another range is not exact with zero padding; build the model with coords=Coordinates"
    with pytest.raises(ValueError, match=message):
        import_concatenated(ours, port.state_dict(), layout)
    with pytest.raises(ValueError, match=message):
        export_concatenated(ours, layout)
    ours.load_state_dict(import_concatenated(ours, port.state_dict(), layout, exact=False))
    x = torch.randn(2, 3, 11, 14, dtype=torch.float64)
    port.eval(), ours.eval()
    difference = (ours(x) - port(x)).abs()
    assert difference[..., 2:-2, 2:-2].max() < 1e-12
    assert difference.max() > 1e-3


def test_another_range_in_a_strided_transposed_layer_is_exact_inside_for_equal_weights() -> None:
    layout = ConcatenatedLayout("xy", range=(0, 1), conv="")
    ours = nn.Sequential(CoordConvTranspose2d(1, 2, 4, stride=2, padding=1)).double()
    theirs = {"0.weight": torch.rand(3, 2, 1, 1).double().expand(3, 2, 4, 4), "0.bias": torch.rand(2).double()}
    ours.load_state_dict(import_concatenated(ours, theirs, layout, exact=False))
    x = torch.randn(2, 1, 7, 9, dtype=torch.float64)
    port = nn.functional.conv_transpose2d(
        AddCoords(layout.coordinates)(x), theirs["0.weight"], theirs["0.bias"], stride=2, padding=1
    )
    difference = (ours(x) - port).abs()
    assert difference[..., 1:-1, 1:-1].max() < 1e-12
    assert difference.max() > 1e-3


LAYOUT = ConcatenatedLayout("xy", range=(0, 1))
THEIRS = {"0.conv.weight": torch.zeros(4, 5, 3, 3)}


@pytest.mark.parametrize(
    ("layer", "theirs", "message"),
    [
        (CoordConv2d(3, 4, 3), {}, "0.conv.weight is not in the state dict; layout.conv='conv' names the convolution"),
        (CoordConv2d(4, 4, 3), THEIRS, "0.conv.weight has the shape (4, 5, 3, 3); layer '0' needs (4, 6, 3, 3)"),
        (CoordConv2d(3, 4, 3, bias=False), THEIRS, "layer '0': another range needs a bias, which the layer does not"),
        (CoordConvTranspose2d(3, 5, 3), {"0.conv.weight": torch.zeros(5, 5, 3, 3)}, "exact with a transposed convolu"),
        (
            CoordConv2d(3, 4, 3, coords=Coordinates("xy", align_corners=False)),
            THEIRS,
            "cannot be written as Coordinates(",
        ),
        (CoordConv2d(3, 3, 3, groups=3), {}, "layer '0' has groups=3: in a concatenating layer, only some groups"),
        (nn.Conv2d(3, 4, 3), {}, "the model has no CoordConv layer"),
    ],
)
def test_what_cannot_be_converted_is_named(layer: nn.Module, theirs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        import_concatenated(nn.Sequential(layer), theirs, LAYOUT)


def test_layout_without_an_inner_convolution_is_imported_and_exported() -> None:
    model = nn.Sequential(CoordConv2d(3, 4, 3, bias=False))
    theirs = {"0.weight": torch.randn(4, 5, 3, 3)}
    layout = ConcatenatedLayout("xy", conv="")
    assert model.load_state_dict(import_concatenated(model, theirs, layout)) == ([], [])
    assert torch.equal(export_concatenated(model, layout)["0.weight"], theirs["0.weight"])
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.bias"'):  # not dropped: the outputs would differ
        model.load_state_dict(import_concatenated(model, {**theirs, "0.bias": torch.ones(4)}, layout))


def test_a_shared_layer_has_all_its_names() -> None:
    layer, layout = CoordConv2d(3, 3, 3, padding=1), ConcatenatedLayout("yx", coords_first=True)
    shared, separate = nn.Sequential(layer, nn.ReLU(), layer), nn.Sequential(layer, nn.ReLU(), copy.deepcopy(layer))
    theirs = export_concatenated(shared, layout)
    expected = export_concatenated(separate, layout)
    assert {key: value.tolist() for key, value in theirs.items()} == {k: v.tolist() for k, v in expected.items()}
    assert shared.load_state_dict(import_concatenated(shared, theirs, layout)) == ([], [])


def test_a_moved_radius_over_fewer_axes_than_the_layer_s_is_refused() -> None:
    layout = ConcatenatedLayout("xr", radius_factor=2)  # r of a port's image would be over both axes
    model = nn.Sequential(CoordConv2d(3, 4, 1, coords=layout.coordinates))
    with pytest.raises(ValueError, match=r"layer '0': radius_centre and radius_factor need channels of all 2 axes"):
        import_concatenated(model, {"0.conv.weight": torch.zeros(4, 5, 1, 1)}, layout)
    assert CoordConv1d(3, 4, 1, coords=layout.coordinates)(torch.zeros(1, 3, 5)).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": "xx"}, "channels='xx' must be letters of 'xyzr', each once"),
        ({"channels": ""}, "channels='' must be letters"),
        ({"range": (1, 1)}, "range=(1, 1) must be two finite numbers"),
        ({"channels": "yr", "radius_factor": 2}, "radius_centre and radius_factor need all axes before them"),
        ({"channels": "xyr", "radius_factor": 0}, "radius_factor=0 must be a positive number"),
        ({"channels": "xyr", "radius_factor": "2"}, "radius_factor='2' must be a positive number"),
        ({"radius_centre": math.nan}, "radius_centre=nan must be a finite number, or None"),
        ({"coords_first": "no"}, "coords_first='no' must be True or False"),
    ],
)
def test_a_wrong_layout_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ConcatenatedLayout(**fields)


def test_a_layout_without_peculiarities_is_ours() -> None:
    assert ConcatenatedLayout("xyr").coordinates == Coordinates("xyr")
    assert CoordConv2d(1, 2, 3, coords=ConcatenatedLayout("ryx").coordinates).coords == "xyr"

"""`AddCoords`: the channels that it appends, its memory format, gradients, copies, and what is refused."""

from __future__ import annotations

import pickle

import pytest
import torch

from coordconv_apps import AddCoords
from tests.nn.reference import coordinates


@pytest.mark.parametrize(
    ("coords", "shape"),
    [
        ("x", (2, 3, 5)),
        ("xr", (3, 5)),
        ("xy", (2, 3, 4, 5)),
        ("xyr", (2, 3, 4, 1)),
        ("xyr", (3, 4, 5)),
        ("xy", (0, 3, 4, 5)),
        ("xyz", (1, 2, 2, 4, 5)),
        ("xyzr", (2, 2, 4, 5)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_add_coords_appends_the_grid_to_every_sample(coords: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = AddCoords(coords)
    x = torch.randn(shape, dtype=dtype)
    size = shape[-layer.ndim :]
    y = layer(x)
    features, added = y.split([x.shape[-layer.ndim - 1], len(coords)], dim=-layer.ndim - 1)
    assert y.dtype == dtype
    assert torch.equal(features, x)
    expected = coordinates(size, coords.endswith("r")).to(dtype)
    torch.testing.assert_close(added, expected.expand_as(added))


@pytest.mark.parametrize(
    ("coords", "shape"), [("xyr", (2, 3, 4, 5)), ("xy", (2, 1, 4, 5)), ("xyzr", (2, 3, 4, 5, 6)), ("xyz", (3, 4, 5, 6))]
)
def test_add_coords_keeps_the_memory_format(coords: str, shape: tuple[int, ...]) -> None:
    layer, x = AddCoords(coords), torch.randn(shape)
    assert layer(x).is_contiguous()
    if len(shape) == layer.ndim + 2:
        form = torch.channels_last if layer.ndim == 2 else torch.channels_last_3d
        y = layer(x.contiguous(memory_format=form))
        assert y.is_contiguous(memory_format=form) or shape[1] == 1  # one channel is in both formats
        assert torch.equal(y, layer(x))


def test_add_coords_passes_gradients_and_names_its_coordinates() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    weight = torch.randn(2, 6, 4, 5)
    (AddCoords("xyr")(x) * weight).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, weight[:, :3])
    assert repr(AddCoords("xyr")) == "AddCoords(coords='xyr')"


@pytest.mark.parametrize("coords", ["", "yx", "wxyz", "xyzzy", "xrr", "none"])
def test_add_coords_refuses_unknown_coordinates(coords: str) -> None:
    with pytest.raises(ValueError, match=f"coords={coords!r} must be letters of 'xyzr'"):
        AddCoords(coords)


def test_add_coords_refuses_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="input has 5 axes; coords='xy' needs"):
        AddCoords("xy")(torch.zeros(1, 1, 1, 1, 1))
    with pytest.raises(TypeError, match=r"torch\.uint8 cannot hold coordinates"):
        AddCoords("xy")(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))


def test_add_coords_can_be_copied_and_holds_no_state() -> None:
    layer = AddCoords("xyr")
    assert layer.state_dict() == {}
    x = torch.randn(1, 2, 3, 4)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))

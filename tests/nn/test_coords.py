"""The coordinate grids: values against the paper's formula, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from coordconv_apps import Coordinates, axis_coords, coord_grid
from coordconv_apps.nn.coords import coords_for, layer_coords
from tests.nn.reference import coordinates


@pytest.mark.parametrize("size", [2, 3, 4, 5, 64, 999])
def test_an_axis_runs_evenly_from_minus_one_to_one(size: int) -> None:
    axis = axis_coords(size, dtype=torch.float64)
    expected = [2 * i / (size - 1) - 1 for i in range(size)]
    torch.testing.assert_close(axis, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert axis[0] == -1
    assert axis[-1] == 1
    assert torch.equal(axis, -axis.flip(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_axis_of_one_position_sits_at_the_centre_in_every_dtype(dtype: torch.dtype) -> None:
    assert torch.equal(axis_coords(1, dtype=dtype), torch.zeros(1, dtype=dtype))
    assert axis_coords(0, dtype=dtype).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [300, 4097, 100_000])  # beyond what half precision counts, and what it holds
def test_half_precision_rounds_the_exact_coordinates_once(dtype: torch.dtype, size: int) -> None:
    exact = axis_coords(size, dtype=torch.float32)
    assert torch.equal(axis_coords(size, dtype=dtype), exact.to(dtype))


def test_the_default_dtype_and_an_explicit_device_are_used() -> None:
    assert axis_coords(3).dtype == torch.get_default_dtype()
    assert axis_coords(3, device="meta").device.type == "meta"
    assert coord_grid((3, 2), dtype=torch.float64, device="meta").dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_cannot_hold_coordinates(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"dtype={dtype} cannot hold coordinates"):
        axis_coords(3, dtype=dtype)


@pytest.mark.parametrize("size", [(5,), (1,), (3, 4), (1, 4), (4, 1), (1, 1), (2, 3, 4), (2, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("r", [False, True])
def test_a_grid_holds_x_then_y_then_z_then_r(size: tuple[int, ...], r: bool) -> None:
    grid = coord_grid(size, r=r, dtype=torch.float64)
    assert grid.shape == (len(size) + r, *size)
    torch.testing.assert_close(grid, coordinates(size, r), rtol=0, atol=1e-15)


def test_the_first_channel_varies_along_the_last_axis() -> None:
    x, y, r = coord_grid((3, 5), r=True)
    assert torch.equal(x, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).expand(3, 5))
    assert torch.equal(y, torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 5))
    assert r[1, 2] == 0  # the centre
    assert r[0, 0] == pytest.approx(math.sqrt(2))
    assert r.max() == r[0, 0]


@pytest.mark.parametrize("size", [(), (2, 2, 2, 2)])
def test_a_grid_has_one_to_three_axes(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"size=\(.*\) has \d axes; 1 to 3 are allowed"):
        coord_grid(size)


@pytest.mark.parametrize(
    ("coords", "ndim", "count"), [("x", 1, 1), ("xr", 1, 2), ("xy", 2, 2), ("xyr", 2, 3), ("xyz", 3, 3), ("xyzr", 3, 4)]
)
def test_a_specification_names_its_channels(coords: str, ndim: int, count: int) -> None:
    assert Coordinates(coords).count(ndim) == count
    assert coords_for("xyr" if coords.endswith("r") else "xy", ndim) == coords
    assert coords_for(coords, ndim) == coords
    for subset in ("x", "y", "r", "xr", "yr", "z", "xz"):
        if Coordinates(subset).least_ndim <= ndim:
            assert Coordinates(subset).count(ndim) == len(subset)
            assert coords_for(subset, ndim) == coords_for(Coordinates(subset), ndim) == subset


@pytest.mark.parametrize("coords", ["", "yx", "none", "xyrr", "XY", "xyz", "z", "zr"])
def test_other_specifications_of_an_image_are_refused(coords: str) -> None:
    match = f"coords={coords!r} {'needs 3 spatial axes; with 2,' if 'z' in coords else 'must be letters of'}"
    with pytest.raises(ValueError, match=match):
        layer_coords(coords, 2)
    with pytest.raises(ValueError, match=match):
        coords_for(coords, 2)

"""The layers as drop-in replacements: arguments, description, errors, initial weights, copies, state dicts."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from coordconv_apps import (
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose1d,
    CoordConvTranspose2d,
    CoordConvTranspose3d,
)
from tests.nn.reference import concatenated, fill

if TYPE_CHECKING:
    from coordconv_apps.nn.coord_layer import CoordLayer

# All six take the arguments of the two-dimensional ones as far as they are used here.
Layer: TypeAlias = type[CoordConv2d]
Plain: TypeAlias = type[nn.Conv2d]
PAIRS = [
    (CoordConv1d, nn.Conv1d),
    (CoordConv2d, nn.Conv2d),
    (CoordConv3d, nn.Conv3d),
    (CoordConvTranspose1d, nn.ConvTranspose1d),
    (CoordConvTranspose2d, nn.ConvTranspose2d),
    (CoordConvTranspose3d, nn.ConvTranspose3d),
]
each_pair = pytest.mark.parametrize(("cls", "plain"), PAIRS)
each_layer = pytest.mark.parametrize("cls", [cls for cls, _ in PAIRS])
SPECIFICATIONS = {1: ("x", "xr"), 2: ("xy", "xyr"), 3: ("xyz", "xyzr")}


def from_cache(layer: CoordLayer, x: Tensor) -> Tensor:
    """Output in evaluation mode; ``layer`` holds a cached map afterwards."""
    layer.eval()
    with torch.no_grad():
        layer(x)
        y: Tensor = layer(x)
    return y


@each_pair
def test_the_arguments_are_torch_s_in_torch_s_order_then_coords(cls: Layer, plain: Plain) -> None:
    *mine, coords = inspect.signature(cls).parameters.values()
    theirs = list(inspect.signature(plain).parameters.values())
    assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in theirs]
    assert coords.name == "coords"
    assert coords.kind is inspect.Parameter.KEYWORD_ONLY
    assert coords.default == SPECIFICATIONS[cls.ndim][0]


@each_pair
def test_a_layer_is_torch_s_layer_with_one_more_parameter(cls: Layer, plain: Plain) -> None:
    for coords in SPECIFICATIONS[cls.ndim]:
        layer, conv = cls(4, 6, 3, groups=2, coords=coords, dtype=torch.float64), plain(4, 6, 3, groups=2)
        assert isinstance(layer, plain)
        shapes = {name: p.shape for name, p in layer.named_parameters()}
        channels = (len(coords), 6) if layer.transposed else (6, len(coords))
        assert shapes.pop("coord_weight") == (*channels, *layer.kernel_size)
        assert shapes == {name: p.shape for name, p in conv.named_parameters()}
        assert {p.dtype for p in layer.parameters()} == {torch.float64}
        assert list(layer.state_dict()) == ["weight", "bias", "coord_weight"]


@each_layer
def test_device_and_dtype_may_be_given_by_position(cls: Layer) -> None:
    after_padding: list[Any] = [0, 1, False, 1] if "Transpose" in cls.__name__ else [1, 1, False]
    arguments: Any = [2, 3, 3, 1, 0, *after_padding, "zeros", "meta", torch.float16]
    layer = cls(*arguments)
    assert layer.bias is None
    assert layer.coord_weight.device.type == "meta"
    assert layer.coord_weight.dtype == torch.float16
    x = torch.empty(5, 2, *[7] * layer.ndim, device="meta", dtype=torch.float16)
    assert layer(x).shape == (5, 3, *[layer.transposed * 4 + 5] * layer.ndim)
    assert from_cache(layer, x).device.type == "meta"


def test_extra_repr_adds_the_coordinates_to_torch_s() -> None:
    assert repr(CoordConv2d(3, 8, 5, padding="same", coords="xyr")) == (
        "CoordConv2d(3, 8, kernel_size=(5, 5), stride=(1, 1), padding=same, coords='xyr')"
    )
    assert repr(CoordConvTranspose1d(3, 8, 2, stride=2, bias=False)) == (
        "CoordConvTranspose1d(3, 8, kernel_size=(2,), stride=(2,), bias=False, coords='x')"
    )


@each_layer
def test_unknown_coordinates_are_refused(cls: Layer) -> None:
    for coords in ("none", "yx", "rx", "xx", "XY", ""):
        with pytest.raises(ValueError, match=f"^coords={coords!r} must be letters of 'xyzr', each once and in this o"):
            cls(2, 3, 3, coords=coords)
    for axis, coords in enumerate(("x", "yr", "xz"), 1):
        if axis > cls.ndim:
            match = f"^coords={coords!r} needs {axis} spatial axes; with {cls.ndim}, it must be letters of"
            with pytest.raises(ValueError, match=match):
                cls(2, 3, 3, coords=coords)


def test_what_torch_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible by groups"):
        CoordConv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="padding_mode"):
        CoordConv2d(3, 4, 3, padding_mode="mirror")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="strided"):
        CoordConv2d(3, 4, 3, stride=2, padding="same")
    with pytest.raises(ValueError, match="padding mode"):
        CoordConvTranspose2d(3, 4, 3, padding_mode="reflect")  # type: ignore[arg-type]  # wrong on purpose
    layer = CoordConv2d(3, 4, 3)
    with pytest.raises(RuntimeError, match="expected input"):
        layer(torch.zeros(1, 2, 5, 5))
    with pytest.raises(RuntimeError, match="Expected 3D"):
        layer(torch.zeros(5, 5))
    with pytest.raises(ValueError, match="requested an output size"):
        CoordConvTranspose2d(3, 4, 3, stride=2)(torch.zeros(1, 3, 5, 5), output_size=[20, 20])


@each_pair
def test_initial_weights_are_those_of_one_convolution_over_features_and_coordinates(cls: Layer, plain: Plain) -> None:
    torch.manual_seed(0)
    coords, groups = SPECIFICATIONS[cls.ndim][1], 2
    layer = cls(32, 64, 3, groups=groups, coords=coords)
    counted = 64 // groups if layer.transposed else 32 // groups + len(coords)  # torch's rule, see its docs
    bound = 1 / math.sqrt(counted * 3**cls.ndim)
    concatenating = plain(32 + groups * len(coords), 64, 3, groups=groups)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        # Uniform in +-bound: the extremes are reached, nearly, and the standard deviation is bound / sqrt(3).
        assert parameter.abs().max() > bound * (1 - 10 / parameter.numel())
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.25)
    assert concatenating.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert concatenating.get_parameter("bias").abs().max() <= bound


def test_a_seed_fixes_the_weights_and_reset_draws_new_ones() -> None:
    torch.manual_seed(3)
    first = CoordConv2d(2, 3, 3)
    torch.manual_seed(3)
    second = CoordConv2d(2, 3, 3)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    second.reset_parameters()
    for name, parameter in first.named_parameters():
        assert not torch.equal(parameter, second.get_parameter(name))
    torch.manual_seed(3)
    skipped = nn.utils.skip_init(CoordConv2d, 2, 3, 3)
    skipped.reset_parameters()
    assert torch.equal(skipped.coord_weight, first.coord_weight)


@each_pair
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_a_convolution_s_state_dict_gives_the_convolution_s_outputs(
    cls: Layer, plain: Plain, strict: bool, assign: bool
) -> None:
    conv = nn.Sequential(nn.Sequential(plain(3, 5, 3, bias=False, dtype=torch.float64)), nn.ReLU())
    layer = cls(3, 5, 3, bias=False)
    model = nn.Sequential(nn.Sequential(layer), nn.ReLU())
    x = torch.randn(2, 3, *[6] * cls.ndim)
    from_cache(layer, x)
    assert model.load_state_dict(conv.state_dict(), strict=strict, assign=assign) == ([], [])
    assert not layer.coord_weight.any()
    assert layer.coord_weight.requires_grad
    dtype = torch.float64 if assign else torch.float32  # assign takes the loaded tensors themselves
    assert {p.dtype for p in model.parameters()} == {dtype}
    with torch.no_grad():
        assert torch.equal(model(x.to(dtype)), conv.to(dtype)(x.to(dtype)))


def test_a_convolution_s_state_dict_fills_a_layer_on_the_meta_device() -> None:
    conv, layer = nn.Conv2d(3, 5, 3), CoordConv2d(3, 5, 3, device="meta")
    layer.load_state_dict(conv.state_dict(), assign=True)
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(layer(x), conv(x))


def test_a_state_dict_with_something_missing_or_wrong_is_refused() -> None:
    layer = CoordConv2d(3, 5, 3)
    with pytest.raises(RuntimeError, match=r"Missing key.*weight.*coord_weight"):
        layer.load_state_dict({"bias": torch.zeros(5)})
    with pytest.raises(RuntimeError, match="size mismatch for coord_weight"):
        layer.load_state_dict(CoordConv2d(3, 5, 3, coords="xyr").state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*coord_weight"):
        nn.Conv2d(3, 5, 3).load_state_dict(layer.state_dict())


@each_layer
def test_state_dict_round_trip_with_weights_only(cls: Layer) -> None:
    layer, other = cls(2, 3, 3), cls(2, 3, 3)
    x = torch.randn(2, 2, *[5] * cls.ndim)
    expected = from_cache(layer, x)
    assert not torch.equal(from_cache(other, x), expected)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(other(x), expected)


@each_layer
def test_copies_and_pickles_are_independent_and_small(cls: Layer) -> None:
    layer = cls(2, 3, 3, coords=SPECIFICATIONS[cls.ndim][1], dtype=torch.float64)
    fill(layer)
    x = torch.randn(1, 2, *[6] * cls.ndim, dtype=torch.float64)
    empty = len(pickle.dumps(layer))
    expected = from_cache(layer, x)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    assert len(pickle.dumps(layer)) <= empty + 16  # neither grid nor map is in it
    copies = [
        copy.deepcopy(layer),
        copy.copy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(saved, weights_only=False),
    ]
    with torch.no_grad():
        for twin in copies:
            assert type(twin) is cls
            assert repr(twin) == repr(layer)
            assert torch.equal(twin(x), expected)
        layer.coord_weight.mul_(2)
        assert torch.equal(copies[0](x), expected)
        assert torch.equal(copies[2](x), expected)
        assert torch.equal(copies[1](x), layer(x))  # a shallow copy shares its parameters
        torch.testing.assert_close(layer(x), concatenated(layer, x))


def test_in_place_layers_and_backward_hooks_may_follow() -> None:
    layer = CoordConv2d(2, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    inputs = (x, *layer.parameters())
    expected = torch.autograd.grad(concatenated(layer, x).relu().sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad(layer(x).relu_().sum(), inputs), expected)
    shapes: list[torch.Size] = []
    layer.register_full_backward_hook(
        lambda module, grad_in, grad_out: shapes.extend(g.shape for g in (*grad_in, *grad_out))
    )
    torch.testing.assert_close(torch.autograd.grad(layer(x).relu().sum(), inputs), expected)
    assert shapes == [(2, 2, 5, 5), (2, 3, 3, 3)]

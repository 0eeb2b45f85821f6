"""Values and gradients of the layers against the concatenating reference, over everything a convolution can be."""

from __future__ import annotations

import math
from types import MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coordconv_apps import (
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose1d,
    CoordConvTranspose2d,
    CoordConvTranspose3d,
    to_coordconv,
)
from tests.helpers.devices import EVERY_DEVICE
from tests.nn.reference import concatenated, fill

if TYPE_CHECKING:
    from coordconv_apps.nn.coord_layer import CoordLayer

CONV = {1: CoordConv1d, 2: CoordConv2d, 3: CoordConv3d}
TRANSPOSED = {1: CoordConvTranspose1d, 2: CoordConvTranspose2d, 3: CoordConvTranspose3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
SWEEP = settings(max_examples=400, deadline=None, derandomize=True, database=None)


class Case(NamedTuple):
    """A layer's constructor arguments and its input."""

    ndim: int
    options: dict[str, Any]
    batch: int | None
    size: tuple[int, ...]
    channels_last: bool
    frozen: frozenset[str]
    output_size: tuple[int, ...] | None = None

    def layer(self, transposed: bool, device: str) -> CoordLayer:
        layer = (TRANSPOSED if transposed else CONV)[self.ndim](**self.options, dtype=torch.float64, device=device)
        fill(layer)
        for name in self.frozen - {"input"}:
            if getattr(layer, name) is not None:
                getattr(layer, name).requires_grad_(False)
        return layer.to(memory_format=CHANNELS_LAST[self.ndim]) if self.channels_last else layer

    def input(self, device: str) -> Tensor:
        shape = (self.batch, self.options["in_channels"], *self.size)
        x = torch.randn([n for n in shape if n is not None], generator=torch.Generator().manual_seed(1)).double()
        x = x.to(device)
        if self.channels_last and self.batch is not None:
            x = x.contiguous(memory_format=CHANNELS_LAST[self.ndim])
        return x.requires_grad_("input" not in self.frozen)


@st.composite
def common(draw: st.DrawFn) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """What convolutions and transposed ones share: number of axes, constructor arguments, the rest of the case."""
    ndim = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))

    def per_axis(high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(1, high)) for _ in range(ndim))

    options = {
        "in_channels": groups * draw(st.integers(1, 2)),
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": per_axis(4 if ndim < 3 else 3),
        "stride": per_axis(3),
        "dilation": per_axis(2),
        "groups": groups,
        "bias": draw(st.booleans()),
        "coords": "xyz"[:ndim] + draw(st.sampled_from(["", "r"])),
    }
    rest = {
        "batch": draw(st.sampled_from([None, 0, 1, 3])),
        "channels_last": ndim > 1 and draw(st.booleans()),
        "frozen": frozenset(draw(st.sets(st.sampled_from(["input", "weight", "bias", "coord_weight"]), max_size=3))),
    }
    return ndim, options, rest


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    ndim, options, rest = draw(common())
    mode = options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", "numbers", "numbers"]))
    reach = [d * (k - 1) for d, k in zip(options["dilation"], options["kernel_size"], strict=True)]
    if padding == "same":
        options["stride"] = 1
        pads = [(total // 2, total - total // 2) for total in reach]
    elif padding == "valid":
        pads = [(0, 0)] * ndim
    else:
        pads = [(p, p) for p in (draw(st.integers(0, 2)) for _ in range(ndim))]
    options["padding"] = tuple(p for p, _ in pads) if padding == "numbers" else padding
    # The smallest input that torch takes: the kernel fits, and so does what is reflected or wrapped.
    wrapped = {"zeros": -math.inf, "replicate": -math.inf, "circular": 0, "reflect": 1}[mode]
    least = [max(1, total + 1 - sum(pad), max(pad) + wrapped) for total, pad in zip(reach, pads, strict=True)]
    size = tuple(int(n) + draw(st.integers(0, 3)) for n in least)
    return Case(ndim, options, size=size, **rest)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Case:
    ndim, options, rest = draw(common())
    stride, dilation, kernel = options["stride"], options["dilation"], options["kernel_size"]
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    size = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)]
    padding = [draw(st.integers(0, min(2, (f + e - 1) // 2))) for f, e in zip(full, extra, strict=True)]
    options |= {"padding": tuple(padding), "output_padding": tuple(extra)}
    output_size = None
    if draw(st.booleans()):
        output_size = tuple(
            max(1, f - 2 * p) + draw(st.integers(0, s - 1)) for f, p, s in zip(full, padding, stride, strict=True)
        )
        if any(f - 2 * p < 1 for f, p in zip(full, padding, strict=True)):
            output_size = None  # the smallest output would be empty: torch has no say on what lies above it
    return Case(ndim, options, size=size, output_size=output_size, **rest)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def check(case: Case, transposed: bool, device: str) -> None:
    """Outputs and all gradients in training, and outputs in evaluation when computed and when cached."""
    layer, x = case.layer(transposed, device), case.input(device)
    more = [] if case.output_size is None else [case.output_size]
    actual, expected = layer(x, *more), concatenated(layer, x, *more)
    close(actual, expected)
    wanted = {name: p for name, p in {"input": x, **dict(layer.named_parameters())}.items() if p.requires_grad}
    assert actual.requires_grad == bool(wanted)
    if wanted:
        cotangent = torch.randn(actual.shape, generator=torch.Generator().manual_seed(2)).to(actual)
        gradients = (torch.autograd.grad(y, list(wanted.values()), cotangent) for y in (actual, expected))
        for mine, reference in zip(*gradients, strict=True):
            close(mine, reference)
    layer.eval()
    close(layer(x, *more), expected)
    with torch.no_grad():
        close(layer(x, *more), expected)
        close(layer(x, *more), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # torch, about its own copy
@pytest.mark.parametrize(*EVERY_DEVICE)
@SWEEP
@given(case=convolutions())
def test_convolutions_equal_concatenation(device: str, case: Case) -> None:
    check(case, transposed=False, device=device)


@pytest.mark.parametrize(*EVERY_DEVICE)
@SWEEP
@given(case=transposed_convolutions())
def test_transposed_convolutions_equal_concatenation(device: str, case: Case) -> None:
    check(case, transposed=True, device=device)


GRADCHECKED = [
    CoordConv1d(2, 2, 3, stride=2, padding=1, coords="xr", dtype=torch.float64),
    CoordConv2d(2, 2, 3, padding="same", padding_mode="reflect", coords="xyr", dtype=torch.float64),
    CoordConv2d(4, 2, (2, 1), dilation=2, groups=2, bias=False, dtype=torch.float64),
    CoordConv3d(1, 2, 2, dtype=torch.float64),
    CoordConvTranspose2d(2, 2, 3, stride=2, output_padding=1, groups=2, coords="xyr", dtype=torch.float64),
]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own forward-mode rules
@pytest.mark.parametrize("layer", GRADCHECKED, ids=repr)
@pytest.mark.parametrize("channels_last", [False, True])
def test_first_and_second_derivatives_pass_gradcheck(layer: CoordLayer, channels_last: bool) -> None:
    fill(layer)
    x = torch.randn(2, layer.in_channels, *[4, 3, 2][-layer.ndim :], dtype=torch.float64)
    if channels_last and layer.ndim > 1:
        x = x.contiguous(memory_format=CHANNELS_LAST[layer.ndim])
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return y

    inputs = tuple(p.detach().clone().requires_grad_() for p in (x, *layer.parameters()))
    assert torch.autograd.gradcheck(run, inputs, check_batched_grad=True, check_forward_ad=True, fast_mode=True)
    # The layer is linear in each argument: only products of two of them have second derivatives.
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("cls", [CoordConv2d, CoordConvTranspose2d])
def test_complex_layers_equal_concatenation(cls: type[CoordConv2d | CoordConvTranspose2d]) -> None:
    layer = cls(4, 6, 3, padding=1, groups=2, dtype=torch.complex128)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(2, 4, 5, 3, dtype=torch.complex128, requires_grad=True)
    actual, expected = layer(x), concatenated(layer, x)
    close(actual, expected)
    cotangent, inputs = torch.randn_like(actual), [x, *layer.parameters()]
    pairs = zip(*(torch.autograd.grad(y, inputs, cotangent) for y in (actual, expected)), strict=True)
    for mine, reference in pairs:
        close(mine, reference)
    layer.eval()
    with torch.no_grad():
        close(layer(x), expected)
        close(layer(x), expected)


@pytest.mark.parametrize(
    ("layer", "plain"),
    [
        (CoordConv2d(3, 4, 3), nn.Conv2d(3, 4, 3)),
        (CoordConv3d(3, 4, 3), nn.Conv3d(3, 4, 3)),
        (CoordConvTranspose2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_keep_torch_s_memory_format(layer: CoordLayer, plain: nn.Module, training: bool) -> None:
    layout = CHANNELS_LAST[layer.ndim]
    x = torch.randn(2, 3, *[6, 5, 4][: layer.ndim]).contiguous(memory_format=layout).requires_grad_()
    outputs = [module.train(training).to(memory_format=layout)(x) for module in (layer, plain)]
    mine, reference = (torch.autograd.grad(y.square().sum(), x)[0] for y in outputs)
    assert mine.stride() == reference.stride()
    with torch.no_grad():
        outputs += [layer(x), layer(x)]
    assert {y.stride() for y in outputs} == {outputs[1].stride()}


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_settings_changed_after_construction_count(padding_mode: str) -> None:
    """Segmentation models turn strides into dilation on built layers; tiling tools change the padding mode."""
    layer = CoordConv2d(2, 3, 3, stride=2, padding=1, dtype=torch.float64).eval()
    x = torch.randn(2, 2, 9, 7, dtype=torch.float64)
    for training in (True, False):
        layer.train(training)
        with torch.set_grad_enabled(training):
            layer.stride, layer.padding, layer.dilation, layer.padding_mode = (2, 2), (1, 1), (1, 1), "zeros"
            close(layer(x), concatenated(layer, x))
            layer.stride, layer.dilation = (1, 1), (2, 2)
            if padding_mode == "zeros":
                layer.padding = (2, 2)
            else:  # torch reads another attribute then
                layer.padding_mode = "circular"
            assert layer(x).shape == (2, 3, 9, 7) if padding_mode == "zeros" else (2, 3, 7, 5)
            close(layer(x), concatenated(layer, x))


@pytest.mark.parametrize("cls", [CoordConv2d, CoordConvTranspose2d])
def test_plain_numbers_set_after_construction_work_as_in_torch(cls: type[CoordConv2d | CoordConvTranspose2d]) -> None:
    layer, changed = cls(2, 3, 3, stride=1, padding=1, dilation=2), cls(2, 3, 3, stride=2)
    changed.load_state_dict(layer.state_dict())
    changed.stride, changed.padding, changed.dilation = 1, 1, 2  # type: ignore[assignment]  # torch allows it
    x = torch.randn(2, 2, 9, 7)
    assert torch.equal(changed(x), layer(x))


def seamless(layer: nn.Conv2d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution that pads with the opposite border, as programs for tiles put it into image generators."""
    padded = F.pad(input, [1] * 4, mode="circular")
    return F.conv2d(padded, weight, bias, layer.stride, 0, layer.dilation, layer.groups)


@pytest.mark.parametrize("when", ["before conversion", "after conversion", "on the class"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_replaced_convolution_is_honoured(when: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: Any = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, dtype=torch.float64)
    if when == "on the class":
        monkeypatch.setattr(nn.Conv2d, "_conv_forward", seamless)
    if when == "before conversion":
        layer._conv_forward = MethodType(seamless, layer)
    to_coordconv(layer, coords="xyr")
    if when == "after conversion":
        layer._conv_forward = MethodType(seamless, layer)
    fill(layer)
    circular = CoordConv2d(4, 6, 3, 2, 1, 1, groups, padding_mode="circular", coords="xyr", dtype=torch.float64)
    circular.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    for training in (True, False):
        layer.train(training)
        for batch in (x, x[0]):
            torch.testing.assert_close(layer(batch), concatenated(circular, batch))
            with torch.no_grad():
                torch.testing.assert_close(layer(batch), concatenated(circular, batch))
    found, expected = (torch.autograd.grad(one(x).square().sum(), list(one.parameters())) for one in (layer, circular))
    torch.testing.assert_close(found, expected)


def test_a_replaced_convolution_is_compiled() -> None:
    torch.compiler.reset()
    layer, x = CoordConv2d(4, 6, 3, padding=1), torch.randn(2, 4, 7, 8)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), concatenated(layer, x))
    layer._conv_forward = MethodType(seamless, layer)  # type: ignore[method-assign]  # as programs do
    torch.testing.assert_close(compiled(x), layer(x))


def test_layer_with_unit_weights_returns_the_coordinates() -> None:
    """A 1x1 layer whose weights pick x, y and r shows the coordinates themselves."""
    layer = CoordConv2d(1, 3, 1, coords="xyr")
    with torch.no_grad():
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.copy_(torch.tensor([0.0, 10.0, 100.0]))
        layer.coord_weight.copy_(torch.eye(3)[:, :, None, None])
        x, y, r = layer(torch.randn(1, 1, 3, 5))[0]
    assert torch.equal(x, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).expand(3, 5))
    assert torch.equal(y, torch.tensor([[9.0], [10.0], [11.0]]).expand(3, 5))
    assert r[1, 2] == 100
    assert r[2, 4] == pytest.approx(100 + math.sqrt(2))

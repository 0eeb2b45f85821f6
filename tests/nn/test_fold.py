"""`fold`: the same outputs from plain convolutions and constant maps."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, prune

from coordconv_apps import CoordConv1d, CoordConv2d, CoordConvTranspose2d, coordconv_layers, fold, to_coordconv
from tests.nn.networks import SharedConv, UNet, faster_rcnn, sequence_network, volume_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def converted(model: nn.Module, coords: str = "xyr", where: str = "all") -> nn.Module:
    """The model with coordinates that count, in evaluation mode."""
    torch.manual_seed(0)
    to_coordconv(model, where, coords, init="default")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm) and module.track_running_stats:
            nn.init.uniform_(module.running_mean)  # type: ignore[arg-type]  # it has running statistics
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # as above
    return model.eval()


def check(model: nn.Module, folded: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "U-Net": (UNet, (2, 3, 13, 10)),
    "shared": (SharedConv, (1, 3, 9, 9)),
    "1d": (sequence_network, (2, 3, 21)),
    "3d": (volume_network, (2, 3, 4, 5, 6)),
    "lone": (lambda: nn.Conv2d(3, 4, 3), (1, 3, 6, 5)),
    "lone transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, groups=2), (1, 4, 6, 5)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (1, 3, 6, 5)),
    "replicate, strided": (lambda: nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="replicate"), (1, 3, 6, 5)),
    "same, dilated": (lambda: nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4, bias=False), (1, 4, 6, 5)),
    "double": (lambda: UNet().double(), (1, 3, 8, 8)),
    "unbatched": (lambda: nn.Conv2d(3, 4, 3), (3, 6, 5)),
}


@pytest.mark.parametrize(("name", "coords"), [("U-Net", "xy"), *((name, "xyr") for name in MODELS)])
def test_outputs_are_the_same_at_every_batch_size(name: str, coords: str) -> None:
    make, shape = MODELS[name]
    model = converted(make(), coords)
    keys = list(model.state_dict())
    folded = fold(model.train(), shape)
    assert model.training  # the model itself is not touched
    assert coordconv_layers(model)
    assert list(model.state_dict()) == keys
    assert not coordconv_layers(folded)
    assert not any(module.training for module in folded.modules())
    model.eval()
    dtype = next(model.parameters()).dtype
    sample = shape if name == "unbatched" else shape[1:]
    for batch in (1, 2, 5):
        check(model, folded, torch.randn(batch, *sample, dtype=dtype))
    if name not in ("U-Net", "double"):  # batch norm takes no single samples
        check(model, folded, torch.randn(sample, dtype=dtype))
    for parameter in folded.parameters():
        assert not any(parameter is own for own in model.parameters())


def test_resnet18_is_folded_and_plain_convolutions_stay() -> None:
    model = converted(torchvision.models.resnet18(weights=None), where=r"conv1$")
    folded = fold(model, (1, 3, 64, 48))
    check(model, folded, torch.randn(3, 3, 64, 48))
    plain = {name for name, module in folded.named_modules() if type(module) is nn.Conv2d}
    assert "conv1.conv" in plain
    assert "layer1.0.conv2" in plain
    assert folded.get_buffer("conv1.map_64x48_to_32x24").shape == (64, 32, 24)


def test_faster_rcnn_is_folded_for_several_sizes() -> None:
    model = converted(faster_rcnn(), where=r"body\.conv1|^rpn|fpn")
    images = [torch.rand(3, 64, 80), torch.rand(3, 64, 96)]

    def run(m: nn.Module) -> Any:  # noqa: ANN401 - a list of dictionaries
        return [m([image])[0] for image in images]

    folded = fold(model, forward=run)
    assert not coordconv_layers(folded)
    with torch.no_grad():
        expected = run(model)
        assert len(expected[0]["boxes"])
        torch.testing.assert_close(run(folded), expected, rtol=1e-3, atol=1e-3)
        with pytest.raises(ValueError, match="the model was folded for"):
            folded([torch.rand(3, 96, 64)])


def test_a_shared_layer_is_folded_once_for_all_its_sizes() -> None:
    model = converted(SharedConv())
    folded: Any = fold(model, (1, 3, 9, 9))
    assert folded.blocks[1] is folded.first
    assert {name for name, _ in folded.first.named_buffers()} == {"map_9x9_to_5x5", "map_5x5_to_3x3"}


def test_layers_in_lists_and_calls_of_forward_are_folded() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
            self.layers = [self.conv, self.norm]

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.last.forward(input=x)

    model = converted(Listed())
    for fuse in (False, True):
        folded = fold(model, (1, 3, 9, 9), fuse_batch_norm=fuse)
        check(model, folded, torch.randn(2, 3, 9, 9))
        assert isinstance(folded.norm, nn.Identity) == fuse
        assert not coordconv_layers(folded)


def test_a_transposed_layer_is_folded_for_all_its_output_sizes() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = CoordConvTranspose2d(3, 2, 3, stride=2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.up(x, [9, 10]), self.up(input=x, output_size=[10, 9])

    model = Twice().eval()
    folded = fold(model, (1, 3, 4, 4))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(x), model(x))


def test_hooks_act_as_before() -> None:
    model: Any = converted(UNet())
    calls: list[str] = []

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        calls.append("before")
        return (args[0] + 1,)

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        calls.append("after")
        return output * 2

    model.down.register_forward_hook(after)
    model.down.register_forward_pre_hook(before)
    model.up.register_forward_hook(lambda module, args, kwargs, output: output + 1, with_kwargs=True)
    model.head.register_forward_hook(lambda module, args, output: {"out": output})
    folded = fold(model, (1, 3, 8, 8))
    calls.clear()
    check(model, folded, torch.randn(2, 3, 8, 8))
    assert calls == ["before", "after"] * 2


def test_another_input_size_is_refused() -> None:
    folded = fold(converted(UNet()), (1, 3, 8, 8))
    for size in [(8, 9), (4, 4)]:
        text = f"{size[0]}x{size[1]}"
        with pytest.raises(ValueError, match=f"size is {text}_to_{text} .* folded for: 8x8_to_8x8; fold it again for"):
            folded(torch.randn(1, 3, *size))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (8, "^input_size=8: must be the shape of one input, batch included, such as "),
        (torch.zeros(1, 3, 8, 8), r"^input_size=tensor\(.{,25}: must be the shape"),
        ((1, 3, 8.0, 8), r"^input_size=\(1, 3, 8.0, 8\): must be the shape"),
        ((8, 8), r"^input_size=\(8, 8\): the model does not take zeros of this shape, which must be that of one input"),
        ((1, 1, 8, 8), r"^input_size=\(1, 1, 8, 8\): .*RuntimeError: .* to have 3 channels"),
    ],
)
def test_a_wrong_input_size_is_named(size: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ValueError, match=message):
        fold(to_coordconv(UNet()), size)


def test_an_error_within_forward_is_the_caller_s() -> None:
    with pytest.raises(AttributeError, match="no attribute `a`"):
        fold(to_coordconv(UNet()), forward=lambda m: m.get_submodule("a.b"))


def test_what_cannot_be_folded_is_refused() -> None:
    class Own(CoordConv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    class Pointwise(CoordConv2d):
        def __init__(self, channels: int) -> None:
            super().__init__(3, channels, 1)

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = CoordConv2d(3, 2, 1), CoordConv1d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    shape = (1, 3, 8, 8)
    with pytest.raises(ValueError, match="has no CoordConv layer to fold"):
        fold(UNet(), shape)
    with pytest.raises(ValueError, match=r"the run on input_size=\(1, 3, 8, 8\) does not reach unused; .* auxiliary"):
        fold(Unused(), shape)
    with pytest.raises(ValueError, match="the run on forward does not reach used, unused"):
        fold(Unused(), shape, forward=lambda m: None)
    with pytest.raises(TypeError, match="0: Own is a subclass"):
        fold(nn.Sequential(Own(3, 2, 1)), shape)
    layer = Pointwise(2).eval()
    check(layer, fold(layer, shape), torch.randn(2, 3, 8, 8))
    for name in ("weight", "coord_weight", "bias"):
        with pytest.raises(TypeError, match=r"0: .*parametrised"):
            fold(nn.Sequential(parametrizations.weight_norm(CoordConv2d(3, 2, 1), name)), shape)
        layer = prune.l1_unstructured(CoordConv2d(3, 2, 1), name, 0.5)
        with pytest.raises(TypeError, match="the model itself: its weights are computed"):
            fold(layer, shape)
        prune.remove(layer, name)
        check(layer.eval(), fold(layer, shape), torch.randn(2, 3, 8, 8))


def test_what_is_set_on_a_layer_stays() -> None:
    model: Any = converted(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")))
    model[0].stride, model[0].scale = 2, 0.5
    model[0]._reversed_padding_repeated_twice = [2, 2, 0, 0]  # as a layer of another padding has it
    folded: Any = fold(model, (1, 3, 6, 5))
    check(model, folded, torch.randn(2, 3, 6, 5))
    assert type(folded[0].conv) is nn.Conv2d
    assert folded[0].conv.scale == 0.5
    assert set(folded.state_dict()) == {"0.conv.weight", "0.map_6x5_to_2x4"}


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_a_replaced_forward_is_refused(name: str) -> None:
    model: Any = converted(UNet())
    setattr(model.down, name, lambda *args: args[0])
    with pytest.raises(TypeError, match="layers: down: its forward or _conv_forward was replaced; undo that first"):
        fold(model, (1, 3, 8, 8))


def test_a_convolution_changed_after_folding_is_refused() -> None:
    changes: list[Callable[[Any], object]] = [
        lambda conv: setattr(conv, "_conv_forward", lambda input, weight, bias: F.conv2d(input, weight, bias, 1, 1)),
        lambda conv: setattr(conv, "padding_mode", "circular"),
        lambda conv: setattr(conv, "dilation", (2, 2)),
    ]
    for change in changes:
        folded: Any = fold(CoordConv2d(3, 4, 3, padding=1), (1, 3, 8, 8))
        change(folded.conv)
        with pytest.raises(ValueError, match="the settings of the convolution changed after folding"):
            folded(torch.randn(1, 3, 8, 8))


def test_the_convolution_s_attributes_can_be_read_but_not_set() -> None:
    layer = CoordConvTranspose2d(4, 6, 3, 2, output_padding=1, groups=2).half()
    folded: Any = fold(layer, (1, 4, 6, 5))
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "output_padding", "dilation", "groups")
    for name in (*names, "padding_mode", "transposed"):
        assert getattr(folded, name) == getattr(layer, name)
    assert torch.equal(folded.weight, layer.weight)
    assert folded.weight.dtype == torch.float16
    for name in ("weight", "stride", "bias"):
        with pytest.raises(AttributeError, match=f"^{name} of a folded layer is read-only"):
            setattr(folded, name, nn.Parameter(torch.zeros(4, 3, 3, 3)))
    assert not hasattr(folded, "bias")
    assert isinstance(pickle.loads(pickle.dumps(folded)), type(folded))


def test_batch_normalisation_is_not_fused_into_a_folded_layer_alone() -> None:
    folded: Any = fold(CoordConv2d(3, 4, 3, bias=False), (1, 3, 8, 8))
    with pytest.raises(AttributeError, match="has no bias: its constant map holds bias and coordinates"):
        fuse_conv_bn_eval(folded, nn.BatchNorm2d(4).eval())


def test_batch_normalisation_is_fused_before_converting_or_with_the_coordinates() -> None:
    """As docs/layer/folding.md says."""
    torch.manual_seed(0)
    conv: nn.Conv2d = nn.Conv2d(3, 4, 3, bias=False).eval()
    norm: Any = nn.BatchNorm2d(4)
    x = torch.randn(2, 3, 8, 8)
    norm(torch.randn(2, 4, 8, 8))  # moves its statistics
    model = nn.Sequential(conv, norm.eval())
    fused = to_coordconv(fuse_conv_bn_eval(conv, norm))
    torch.testing.assert_close(fused(x), model(x))
    layer: Any = converted(conv)
    trained: Any = fuse_conv_bn_eval(conv, norm)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    trained.coord_weight = nn.Parameter(layer.coord_weight * scale.view(-1, 1, 1, 1))
    torch.testing.assert_close(trained(x), model(x))


class SameConv(nn.Conv2d):
    """A subclass that has a constructor only."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)


class Normalised(nn.Module):
    """Batch norms that may be fused (a, b, c), and such that may not, because something else reads the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)  # comes first, is no float
        self.a = nn.Sequential(SameConv(3, 4), nn.BatchNorm2d(4))
        self.b = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, stride=2), nn.BatchNorm2d(4, affine=False))
        self.c = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, 2, 1, groups=2), "norm": nn.SyncBatchNorm(4)})
        self.added = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.shared, self.norms = nn.Conv2d(4, 4, 1), nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.batch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
        self.grouped = nn.Sequential(nn.ConvTranspose2d(4, 4, 1, groups=2), nn.BatchNorm2d(4))
        self.hooked = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.hooked[0].register_forward_hook(lambda module, args, output: output + 1)
        self.returned = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.direct = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.read = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        x = torch.relu_(self.c["norm"](self.c["conv"](x)))
        y = self.added[0](x)
        x = self.added[1](y) + y
        for norm in self.norms:
            x = norm(self.shared(x))
        x = self.hooked(self.grouped(self.batch(x)))
        x = self.direct(x) + self.direct[0].forward(x)
        x = self.read(x) * self.read.get_parameter("0.weight").mean()
        y = self.returned[0](x)
        return self.returned[1](y), y


@pytest.mark.parametrize(("dtype", "where"), [(torch.float32, "all"), (torch.float64, r"^[bc]\b")])
def test_batch_normalisation_is_fused_by_fold(dtype: torch.dtype, where: str) -> None:
    model = converted(Normalised(), where=where).to(dtype)
    x = torch.randn(2, 3, 8, 6, dtype=dtype)
    folded = fold(model, x.shape, fuse_batch_norm=True)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))
    identities = [name for name, module in folded.named_modules() if isinstance(module, nn.Identity)]
    assert identities == ["a.1", "b.1", "c.norm"]
    assert isinstance(model.get_submodule("a.1"), nn.BatchNorm2d)


def test_plain_and_coordinate_convolutions_of_a_resnet_are_fused() -> None:
    model = converted(torchvision.models.resnet18(weights=None), where=r"conv1$")
    folded = fold(model, (1, 3, 32, 32), fuse_batch_norm=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    check(model, folded, torch.randn(2, 3, 32, 32))
    window = fold(model, forward=lambda m: m(torch.zeros(1, 3, 32, 32)), fuse_batch_norm=True)
    check(model, window, torch.randn(2, 3, 32, 32))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ["U-Net", "shared", "3d"])
def test_a_folded_model_can_be_scripted(name: str) -> None:
    make, shape = MODELS[name]
    model = converted(make())
    if name == "U-Net":  # TorchScript refuses its slice of a shape as ``output_size``
        model = converted(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 4, 2, 1)))
    folded = fold(model, shape)
    scripted = torch.jit.script(folded)
    check(model, folded, torch.randn(shape))  # its layers have changed their form
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    for batch in (1, 3):
        check(model, loaded, torch.randn(batch, *shape[1:]))
    with pytest.raises(torch.jit.Error, match="folded for other input sizes; fold it again for this size"):
        loaded(torch.randn(1, shape[1], *(n + 8 for n in shape[2:])))


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated
def test_eager_quantisation_is_refused_in_words() -> None:
    layer = fold(converted(nn.Conv2d(3, 4, 1)), (1, 3, 4, 4))
    wrapped = quantization.QuantWrapper(layer)
    wrapped.qconfig = quantization.get_default_qconfig("fbgemm")
    quantised = quantization.quantize(wrapped, lambda m: m(torch.rand(1, 3, 4, 4)), ())
    with pytest.raises(TypeError, match="eager quantisation does not know the map of a folded layer; use torchao"):
        quantised(torch.rand(1, 3, 4, 4))


@pytest.mark.slow  # the import of torchao takes 9 s
@pytest.mark.filterwarnings("ignore")  # of torchao, about torch's and its own interfaces
def test_a_folded_model_is_quantised() -> None:
    """As docs/layer/folding.md says, with torch's own model of 8-bit arithmetic on a CPU."""
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model = converted(nn.Sequential(first, second))
    images = [torch.rand(4, 3, 16, 16) for _ in range(4)]
    folded = fold(model, (1, 3, 16, 16), fuse_batch_norm=True)
    with torch.no_grad():
        program = torch.export.export(folded, (images[0],)).module()
        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = pt2e.prepare_pt2e(program, quantizer)
        for x in images:
            prepared(x)
        quantised = pt2e.convert_pt2e(prepared)
        expected, found = model(images[0]), quantised(images[0])
    assert 0 < (found - expected).norm() < 0.1 * expected.norm()
    assert any("quantize_per_channel" in str(node.target) for node in quantised.graph.nodes)


def test_an_adapter_may_be_put_around_the_convolution() -> None:
    """As LoRA does."""

    class Adapter(nn.Module):
        def __init__(self, base_layer: nn.Module) -> None:
            super().__init__()
            self.base_layer, self.added = base_layer, nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.base_layer(x) + self.added(x)
            return y

    layer = converted(nn.Conv2d(3, 4, 3))
    folded, x = fold(layer, (1, 3, 8, 8)), torch.randn(2, 3, 8, 8)
    folded.conv = adapter = Adapter(folded.conv)  # type: ignore[arg-type]  # a module
    torch.testing.assert_close(folded(x), layer(x) + adapter.added(x))


def test_computed_tensors_beside_a_layer_are_copied() -> None:
    """Those of the old spectral normalisation, and what a program keeps on a module."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(CoordConv2d(3, 4, 3), nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)))
    x = torch.randn(2, 3, 8, 8)
    model[0].last_output = model(x)
    folded = fold(model.eval(), (1, 3, 8, 8))
    check(model, folded, x)
    assert model[0].last_output.grad_fn is not None  # the model itself is not touched


def test_a_folded_model_can_be_saved_copied_and_moved() -> None:
    first, second = converted(UNet()), converted(UNet())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.01)
    one, two = fold(first, (1, 3, 8, 8)), fold(second, (1, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two.load_state_dict(torch.load(file, weights_only=True))
    check(first, two, x)
    check(first, copy.deepcopy(one), x)
    with torch.no_grad():
        torch.testing.assert_close(one.double()(x.double()).float(), first(x), rtol=1e-4, atol=1e-4)
    names = set(two.state_dict())
    assert not any("coord_weight" in name for name in names)
    assert {"down.conv.weight", "down.map_8x8_to_4x4", "stem.1.running_mean"} <= names
    assert "down.conv.bias" not in names  # the map holds it


def test_a_folded_model_can_be_traced(tmp_path: Path) -> None:
    model = converted(nn.Sequential(SharedConv(), nn.ConvTranspose2d(3, 2, 3, stride=2)))
    folded, x = fold(model, (1, 3, 8, 8)), torch.randn(4, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of every size that becomes part of the trace
        check(model, torch.jit.trace(folded, (x[:2],)), x)
        file = str(tmp_path / "model.onnx")
        axes = {"x": {0: "batch"}}
        torch.onnx.export(folded, (x[:2],), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_folded_model_can_be_exported() -> None:
    model = converted(UNet())
    folded = fold(model, (1, 3, 8, 8))
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        program = torch.export.export(folded, (x[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        check(model, program.module(), x)
        kinds = {node.op for node in program.graph.nodes}
        assert kinds == {"placeholder", "call_function", "output"}
        # Constant maps: nothing computes coordinates any more.
        assert not any("arange" in str(node.target) for node in program.graph.nodes)


def test_a_model_is_folded_that_was_compiled_and_used() -> None:
    torch._dynamo.reset()
    model, x = converted(UNet()), torch.randn(2, 3, 8, 8)
    compiled: Any = torch.compile(model.eval(), backend="eager")
    with torch.no_grad():
        wanted = compiled(x)
        torch.testing.assert_close(fold(compiled, (1, 3, 8, 8))(x), wanted)


def test_a_model_folded_for_several_sizes_can_be_compiled() -> None:
    """The second size makes the sizes symbols within the compiled code."""
    torch._dynamo.reset()
    model = converted(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)))
    inputs = [torch.randn(2, 3, size, size) for size in (8, 12)]
    folded = fold(model, forward=lambda m: [m(x) for x in inputs])
    compiled: Any = torch.compile(folded, backend="eager", fullgraph=True)
    for x in inputs * 2:
        check(model, compiled, x)


def test_a_folded_layer_has_the_precision_of_autocast() -> None:
    layer = CoordConv2d(3, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert fold(layer, (1, 3, 8, 8))(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16


def test_a_folded_model_trains_on_with_fixed_coordinates() -> None:
    folded = fold(converted(UNet()).requires_grad_(False), (1, 3, 8, 8))
    assert not any(p.requires_grad for p in folded.parameters())
    folded = fold(converted(UNet()), (1, 3, 8, 8))
    folded(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in folded.parameters())

"""`to_coordconv`: what it selects, keeps, reports and refuses."""

from __future__ import annotations

import copy
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from coordconv_apps import (
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose1d,
    CoordConvTranspose2d,
    CoordConvTranspose3d,
    coordconv_layers,
    to_coordconv,
)
from tests.nn.networks import SharedConv, UNet, faster_rcnn, sequence_network, volume_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNET = ["stem.0", "down", "middle.conv", "up", "head"]


def snapshot(model: nn.Module) -> tuple[list[tuple[str, type]], dict[str, Tensor]]:
    """Everything that a refused conversion must leave alone."""
    types = [(name, type(module)) for name, module in model.named_modules()]
    return types, {name: value.clone() for name, value in model.state_dict().items()}


def check_unchanged(model: nn.Module, before: tuple[list[tuple[str, type]], dict[str, Tensor]]) -> None:
    types, values = snapshot(model)
    assert types == before[0]
    assert list(values) == list(before[1])
    for name, value in values.items():
        assert torch.equal(value, before[1][name])


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("first", UNET[:1]),
        ("all", UNET),
        ("^(up|head)$", ["up", "head"]),
        (r"\.", ["stem.0", "middle.conv"]),
        ("stem", ["stem.0"]),
        (lambda name, layer: isinstance(layer, nn.ConvTranspose2d), ["up"]),
        (lambda name, layer: layer.in_channels == 8 and name != "head", ["middle.conv", "up"]),
    ],
)
def test_where_selects_layers(where: str | Callable[[str, nn.Module], bool], names: list[str]) -> None:
    model = UNet()
    assert to_coordconv(model, where) is model
    assert list(coordconv_layers(model)) == names
    classes = {name: type(layer) for name, layer in coordconv_layers(model).items()}
    assert all(cls is (CoordConvTranspose2d if name == "up" else CoordConv2d) for name, cls in classes.items())
    assert "coords='xy'" in repr(next(iter(coordconv_layers(model).values())))


@pytest.mark.parametrize("coords", ["xy", "xyr"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_u_net_s_outputs_stay(coords: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    model, x = UNet().eval(), torch.randn(2, 3, 13, 10)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    expected = model(x).detach()
    to_coordconv(model, "all", coords=coords)
    torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)


def test_resnet50_s_outputs_stay_bit_by_bit() -> None:
    torch.manual_seed(0)
    model, x = torchvision.models.resnet50(weights=None).eval(), torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        expected = model(x)
        to_coordconv(model, "first")
        assert list(coordconv_layers(model)) == ["conv1"]
        assert torch.equal(model(x), expected)
        to_coordconv(model, "all", coords="xyr")
        assert len(coordconv_layers(model)) == 53
        assert torch.equal(model(x), expected)
    plain = torchvision.models.resnet50(weights=None)
    assert model.load_state_dict(plain.state_dict(), strict=True) == ([], [])


def test_faster_rcnn_s_detections_and_losses_stay() -> None:
    model = faster_rcnn()
    images = [torch.rand(3, 64, 80), torch.rand(3, 72, 64)]
    targets = [{"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])} for _ in images]

    def run() -> tuple[Any, Any]:
        used = copy.deepcopy(model)  # training moves the running statistics
        with torch.no_grad():
            detections = used.eval()(images)
            torch.manual_seed(1)  # for the proposals that the losses sample
            return detections, used.train()(images, targets)

    expected = run()
    assert len(expected[0][0]["boxes"])
    to_coordconv(model, "first")
    assert list(coordconv_layers(model)) == ["backbone.body.conv1"]
    torch.testing.assert_close(run(), expected, rtol=0, atol=0)
    to_coordconv(model, r"^rpn\.|fpn", coords="xyr")
    assert len(coordconv_layers(model)) == 1 + 8 + 3
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "shape", "classes"),
    [
        (sequence_network(), (2, 3, 21), [CoordConv1d, CoordConvTranspose1d]),
        (volume_network(), (2, 3, 4, 5, 6), [CoordConv3d, CoordConvTranspose3d]),
        (nn.Conv2d(3, 4, 3), (2, 3, 6, 5), [CoordConv2d]),
    ],
)
@pytest.mark.parametrize("coords", ["xy", "xyr"])
def test_models_of_any_number_of_axes_and_a_lone_layer_are_converted(
    model: nn.Module, shape: tuple[int, ...], classes: list[type], coords: str
) -> None:
    model, x = copy.deepcopy(model).double(), torch.randn(shape, dtype=torch.float64)
    expected = model(x).detach()
    assert to_coordconv(model, "all", coords=coords) is model
    layers: list[Any] = list(coordconv_layers(model).values())
    assert [type(layer) for layer in layers] == classes
    assert {layer.coords for layer in layers} == {"xyz"[: layers[0].ndim] + ("r" if coords == "xyr" else "")}
    assert {layer.coord_weight.dtype for layer in layers} == {torch.float64}
    torch.testing.assert_close(model(x), expected)


def test_parameters_hooks_modes_and_flags_stay() -> None:
    model = UNet().double()
    model.middle.eval()
    model.down.weight.requires_grad_(False)
    calls: list[str] = []
    model.down.register_forward_hook(lambda module, args, output: calls.append(type(module).__name__))
    model.down.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model.register_buffer("extra", torch.zeros(3))
    parameters, children = dict(model.named_parameters()), dict(model.named_modules())
    flags = {name: p.requires_grad for name, p in parameters.items()}
    modes = {name: module.training for name, module in model.named_modules()}
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = copy.deepcopy(model)(x)
    to_coordconv(model, "all")
    torch.testing.assert_close(model(x), expected)
    assert calls[-1] == "CoordConv2d"
    assert dict(model.named_modules()) == children  # the very objects
    assert {name: module.training for name, module in model.named_modules()} == modes
    after = dict(model.named_parameters())
    assert {name for name in after if name not in parameters} == {f"{name}.coord_weight" for name in UNET}
    for name, parameter in parameters.items():
        assert after[name] is parameter
        assert parameter.requires_grad == flags[name]
    for name, parameter in after.items():
        assert parameter.dtype == torch.float64
        assert name.endswith("coord_weight") <= (parameter.requires_grad and not parameter.any())


def test_devices_stay() -> None:
    with torch.device("meta"):
        model = UNet()
    to_coordconv(model, "all", init="default")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    model.to_empty(device="cpu").load_state_dict(UNet().state_dict())
    assert not model.get_parameter("up.coord_weight").any()


def test_a_module_in_two_places_stays_one() -> None:
    for where in ("all", "first", r"^blocks\.1$"):  # its second name selects it, too
        model, x = SharedConv(), torch.randn(2, 3, 9, 9)
        expected = model(x)
        to_coordconv(model, where)
        assert model.blocks[1] is model.first
        assert isinstance(model.first, CoordConv2d)
        torch.testing.assert_close(model(x), expected)
        assert ("blocks.0" in coordconv_layers(model)) == (where == "all")


def test_optimizers_continue_and_coordinates_learn() -> None:
    torch.manual_seed(0)
    model, x = UNet(), torch.randn(2, 3, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(x).square().mean().backward()
    optimizer.step()
    to_coordconv(model, "all")
    new = [p for name, p in model.named_parameters() if name.endswith("coord_weight")]
    optimizer.add_param_group({"params": new})
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_default_initialisation_draws_only_the_coordinate_weights() -> None:
    model = UNet()
    weights = {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    to_coordconv(model, "all", coords="xyr", init="default")
    for name, value in weights.items():
        assert torch.equal(model.get_parameter(name), value)
    coord_weight = model.get_parameter("down.coord_weight")
    bound = ((4 + 3) * 9) ** -0.5
    assert 0.9 * bound < coord_weight.abs().max() <= bound
    again = UNet()
    torch.manual_seed(0)
    to_coordconv(again, "all", coords="xyr", init="default")
    assert torch.equal(again.get_parameter("down.coord_weight"), coord_weight)


def test_a_frozen_model_gets_coordinates_that_learn() -> None:
    model = to_coordconv(UNet().requires_grad_(False), "down")
    model(torch.randn(1, 3, 8, 8)).sum().backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained == ["down.coord_weight"]


def test_conversion_may_be_repeated() -> None:
    model = to_coordconv(UNet(), "first", coords="xyr")
    with torch.no_grad():
        model.get_parameter("stem.0.coord_weight").fill_(1)
    to_coordconv(model, "all")
    assert list(coordconv_layers(model)) == UNET
    assert model.get_parameter("stem.0.coord_weight").shape[1] == 3
    assert model.get_parameter("stem.0.coord_weight").all()
    for where, names in [("first", "stem.0"), ("all", ", ".join(UNET)), ("up", "up")]:
        with pytest.raises(
            ValueError, match=f"where='{where}' selects only layers that have coordinates already: {names}$"
        ):
            to_coordconv(model, where)
    with pytest.raises(ValueError, match=r"coordinates already: the model itself$"):
        to_coordconv(CoordConv2d(1, 2, 3))


def test_what_was_replaced_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="coordconv_apps"):
        to_coordconv(UNet(), "up|head")
        to_coordconv(nn.Conv2d(1, 2, 3))
    assert [re.sub(r"\(.*", "", record.getMessage()) for record in caplog.records] == [
        "up is now CoordConvTranspose2d",
        "head is now CoordConv2d",
        "the model is now CoordConv2d",
    ]
    assert "coords='xy'" in caplog.messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"where": "nothing"},
            "where='nothing' selects no plain convolution of the model; its convolutions: stem.0, d",
        ),
        ({"where": lambda name, layer: False}, "selects no plain convolution"),
        ({"where": "("}, r"where='\(' is not 'first', 'all' or a regular expression: "),
        ({"where": None}, "where=None is not 'first', 'all' or a regular expression"),
        ({"coords": "None"}, "^coords='None' must be letters of 'xyzr', each once and in this order"),
        ({"on_unsupported": "warn"}, "on_unsupported='warn' is not one of 'error', 'skip'"),
        ({"coords": "xyz"}, "^coords='xyz' needs 3 spatial axes; with 2, it must be letters of 'xyr'$"),
        ({"init": "ones"}, "init='ones' is not one of 'zero', 'default'"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    model = UNet()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        to_coordconv(model, **options)
    check_unchanged(model, before)
    with pytest.raises(TypeError, match=r"^model: list is not a torch\.nn\.Module$"):
        to_coordconv([model])  # type: ignore[arg-type]  # wrong on purpose


def test_no_coordinates_leave_the_model_as_it_is() -> None:
    for model in (UNet(), nn.Linear(2, 2), nn.LazyConv2d(2, 3)):
        types = [type(module) for module in model.modules()]
        assert to_coordconv(model, "all", coords="none") is model
        assert [type(module) for module in model.modules()] == types
    with pytest.raises(ValueError, match="init='ones'"):
        to_coordconv(UNet(), coords="none", init="ones")  # type: ignore[arg-type]  # wrong on purpose


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(nn.Conv2d(2, 2, 3))
    for model in (nn.Linear(2, 2), scripted):
        with pytest.raises(ValueError, match=r"where='all': the model has no convolution of torch\.nn; convert before"):
            to_coordconv(model, "all")


class PaddedConv(nn.Conv2d):
    """A user's own layer."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (0, 1, 0, 1)))


class QuantisedConv(nn.Module):
    """Like torch's quantised layers: named and shaped like a convolution, but none."""

    kernel_size = (3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x


QuantisedConv.__name__ = "Conv2d"


def replaced_forward() -> nn.Conv2d:
    layer = nn.Conv2d(2, 2, 3)
    layer.forward = lambda input: input  # type: ignore[method-assign]  # as monkeypatching libraries do
    return layer


def older(norm: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The older of torch's two functions of this name."""

    def apply(layer: Any) -> Any:  # noqa: ANN401 - any module
        with pytest.warns(FutureWarning, match="deprecated"):
            return norm(layer)

    return apply


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), "is parametrised; convert first"),
        (lambda: parametrizations.orthogonal(nn.ConvTranspose1d(2, 2, 3)), "is parametrised; convert first"),
        (lambda: older(nn.utils.weight_norm)(nn.Conv2d(2, 2, 3)), "weight is computed; convert first"),
        (lambda: prune.l1_unstructured(nn.Conv2d(2, 2, 3), "weight", 0.5), "weight is computed"),
        (lambda: nn.LazyConv2d(2, 3), "does not know its channels yet"),
        (lambda: nn.LazyConvTranspose2d(2, 3), "does not know its channels yet"),
        (lambda: PaddedConv(2, 2, 3), r"test_convert\.PaddedConv is a subclass of Conv2d with its own forward"),
        (QuantisedConv, "QuantisedConv is not one of torch's own"),
        (replaced_forward, "forward was replaced"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_is_changed(make: Callable[[], Any], reason: str) -> None:
    layer = make()
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sequential(layer), nn.Conv2d(2, 2, 3))
    types = [type(module) for module in model.modules()]
    keys = list(model.state_dict())
    for where in ("all", "1"):
        with pytest.raises(
            TypeError, match=rf"cannot convert 1 of the layers that where='{where}' selects: 1\.0: .*{reason}"
        ):
            to_coordconv(model, where)
        assert [type(module) for module in model.modules()] == types
        assert list(model.state_dict()) == keys
    to_coordconv(model, "^[02]$")
    assert list(coordconv_layers(model)) == ["0", "2"]


def test_what_cannot_be_converted_may_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    norm = parametrizations.weight_norm(nn.Conv2d(2, 2, 3))
    model = nn.Sequential(nn.Conv2d(3, 2, 3), PaddedConv(2, 2, 3), norm, nn.Conv2d(2, 2, 3))
    to_coordconv(model, "all", on_unsupported="skip")
    assert list(coordconv_layers(model)) == ["0", "3"]
    assert type(model[1]) is PaddedConv
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert re.match(r"1 is not converted: .*PaddedConv is a subclass of Conv2d with its own forward", warnings[0])
    assert re.match(r"2 is not converted: .*is parametrised; convert first", warnings[1])
    with pytest.raises(TypeError, match=r"cannot convert 2 of the layers that where='\^\[12\]\$' selects: 1: "):
        to_coordconv(model, "^[12]$", on_unsupported="skip")


def test_lazy_layers_are_converted_once_they_know_their_channels() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3))
    x = torch.randn(1, 2, 5, 5)
    expected = model(x)
    torch.testing.assert_close(to_coordconv(model)(x), expected)


def test_a_model_in_fsdp_is_refused() -> None:
    class FSDPModule:  # what `torch.distributed.fsdp.fully_shard` adds to a module's class
        pass

    model = UNet()
    model.__class__ = type("FSDPUNet", (FSDPModule, UNet), {})
    with pytest.raises(TypeError, match=r"wrapped in FSDPModule.*convert first"):
        to_coordconv(nn.Sequential(model))


def test_a_model_in_ddp_is_refused(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(UNet())
        before = snapshot(model)
        for wrapped in (model, nn.Sequential(model)):
            with pytest.raises(TypeError, match=r"wrapped in DistributedDataParallel.*convert first"):
                to_coordconv(wrapped)
        check_unchanged(model, before)
    finally:
        dist.destroy_process_group()


COMPUTED_WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight_norm": older(nn.utils.weight_norm),
    "old spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "pruned channels": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
}


@pytest.mark.parametrize("compute", COMPUTED_WEIGHTS.values(), ids=COMPUTED_WEIGHTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_checkpoints_of_plain_networks_with_computed_weights_load(
    compute: Callable[[Any], Any], bias: bool, assign: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 5)
    plain = nn.Sequential(nn.ReLU(), compute(nn.Conv2d(3, 4, 3, bias=bias)))
    plain(x)  # spectral normalisation moves its vectors
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, bias=bias))
    compute(to_coordconv(model, init="default")[1])  # type: ignore[index]  # a Sequential
    assert model.load_state_dict(plain.state_dict(), assign=assign) == ([], [])
    assert not model.get_parameter("1.coord_weight").any()
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    # A checkpoint of the model itself keeps its coordinates.
    nn.init.ones_(model.get_parameter("1.coord_weight"))
    model.load_state_dict({**model.state_dict()}, assign=assign)
    assert model.get_parameter("1.coord_weight").all()


@pytest.mark.parametrize("compute", COMPUTED_WEIGHTS.values(), ids=COMPUTED_WEIGHTS)
def test_errors_of_loading_name_true_keys_only(compute: Callable[[Any], Any]) -> None:
    """A weight that was normalised or pruned in one of the two networks only; coordinates that are."""
    layer, file = compute(CoordConv2d(3, 4, 3)), nn.Conv2d(3, 4, 3).state_dict()
    with pytest.raises(RuntimeError) as error:
        layer.load_state_dict(file)
    assert 'Unexpected key(s) in state_dict: "weight".' in str(error.value)
    pruned = prune.l1_unstructured(CoordConv2d(3, 4, 3), "coord_weight", 0.5)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "coord_weight_orig"') as error:
        pruned.load_state_dict(file)
    assert "Unexpected" not in str(error.value)


def test_a_file_without_the_weight_leaves_the_coordinates() -> None:
    layer = CoordConv2d(3, 4, 3)
    layer.load_state_dict({"bias": torch.zeros(4)}, strict=False)
    assert layer.coord_weight.all()

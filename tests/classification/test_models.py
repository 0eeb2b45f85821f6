"""Classifiers: every name, parts that are replaced, weights from files, outputs that coordinates leave unchanged."""

from __future__ import annotations

import copy
import sys
import types
import urllib.error
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.models import vision_transformer
from torchvision.models.regnet import BlockParams

from classification.models import add_stem, build_classifier, torchvision_classifiers
from coordconv_apps import CoordConv2d
from coordconv_apps.nn.convert import coordconv_layers
from tests.helpers.hub_cache import put_in_cache
from tests.helpers.planted import Planted
from tests.nn.reference import coordinates

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordconv_apps.nn.coords import Coords

# Of every family the cheapest, and the smallest picture that it takes.
FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (63, {}),
    "convnext_tiny": (32, {}),
    "densenet121": (32, {}),
    "efficientnet_b0": (32, {}),
    "googlenet": (32, {}),
    "inception_v3": (75, {}),
    "maxvit_t": (224, {}),
    "mnasnet0_5": (32, {}),
    "mobilenet_v2": (32, {}),
    "mobilenet_v3_small": (32, {}),
    "regnet_x_400mf": (32, {}),
    "resnet18": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "squeezenet1_0": (32, {}),
    "swin_t": (32, {}),
    "swin_v2_t": (32, {}),
    "vgg11": (32, {}),
    "vit_b_16": (32, {"image_size": 32}),
}
"""Families of torchvision's classifiers: a small one of each, pictures' side, and arguments for them."""

PLAIN: dict[str, Any] = {"where": "first", "coords": "none"}
"""The network as the library has it."""


def build(network: str = "resnet18", num_classes: int = 4, **arguments: Any) -> nn.Module:  # noqa: ANN401  # handed on
    torch.manual_seed(0)
    return build_classifier(network, num_classes=num_classes, **arguments)


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def shake(network: nn.Module, side: int = 32) -> nn.Module:
    """Like a trained network, in evaluation: nothing is 0 or 1 as it was at the beginning, and norms know their inputs.

    Without that, most networks give the same outputs for all pictures, and tests would show nothing.
    """
    torch.manual_seed(2)
    for parameter in network.parameters():
        noise = 0.05 * torch.randn_like(parameter)
        parameter.add_(noise.abs() if parameter.dim() == 1 else noise)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        network.train()(images(side, 8))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Writes a network's weights to a file."""

    def save(network: nn.Module) -> str:
        path = tmp_path / "weights.pt"
        torch.save(network.state_dict(), path)
        return str(path)

    return save


@pytest.fixture
def meta_regnets(monkeypatch: pytest.MonkeyPatch) -> None:
    """RegNet's builder computes widths with tensors, for which the meta device has no numbers."""
    original = BlockParams.from_init_params

    def on_cpu(*args: object, **kwargs: object) -> BlockParams:
        with torch.device("cpu"):
            return original(*args, **kwargs)

    monkeypatch.setattr(BlockParams, "from_init_params", on_cpu)


@pytest.fixture
def cheap_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vision transformer has one layer instead of 12 equal ones, and initial weights are not truncated."""
    original = vision_transformer._vision_transformer

    def shallow(**arguments: object) -> nn.Module:
        built: nn.Module = original(**{**arguments, "num_layers": 1})
        return built

    monkeypatch.setattr(vision_transformer, "_vision_transformer", shallow)
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda weight, *_, **__: nn.init.normal_(weight, std=0.02))


# ------------------------------------------------------------------ every name


@pytest.mark.usefixtures("meta_regnets")
@pytest.mark.parametrize("network", FAMILIES)
def test_a_classifier_of_every_family_gets_stem_and_head(network: str) -> None:
    side, args = FAMILIES[network]
    with torch.device("meta"):
        built = build(network, 7, coords="xyr", network_args=args)
        logits = built.train()(torch.rand(2, 3, side, side))  # in training, for auxiliary heads would show there
    assert isinstance(logits, Tensor)
    assert logits.shape == (2, 7)
    (name, stem), *others = coordconv_layers(built).items()
    assert not others
    assert isinstance(stem, CoordConv2d)
    assert (stem.in_channels, stem.out_channels, stem.kernel_size, stem.coords) == (3, 8, (1, 1), "xyr")
    first = built.get_submodule(name.removesuffix("stem") + "conv")
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == first.weight.shape[1] == 8
    assert not [name for name in built.state_dict() if name.startswith(("aux", "Aux"))]


def test_every_torchvision_family_is_listed() -> None:
    modules = {tv_models.get_model_builder(name).__module__ for name in torchvision_classifiers()}
    assert {tv_models.get_model_builder(name).__module__ for name in FAMILIES} == modules


# ------------------------------------------------------------------ trained weights and coordinates


@pytest.mark.parametrize(
    "network",
    ["convnext_tiny", "resnet18", "squeezenet1_0", "vit_b_16"],
)
@pytest.mark.usefixtures("cheap_transformers")
def test_coordinates_leave_outputs_of_trained_weights_unchanged(network: str, saved: Callable[..., str]) -> None:
    side, args = FAMILIES[network]
    trained = shake(build(network, 20, network_args=args, **PLAIN), side)
    path, expected = saved(trained), trained(images(side))
    assert expected.std(0).max() > 1e-2, "pictures matter"
    choices: list[tuple[str, Coords]] = [("stem", "xyr"), ("first", "xyr"), ("all", "xy")]
    for where, coords in [*choices, ("stem", "none")] if network == "resnet18" else choices:
        built = build(network, 20, where=where, coords=coords, weights=path, network_args=args).eval()
        assert bool(coordconv_layers(built)) == (coords != "none")
        torch.testing.assert_close(built(images(side)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", ["stem", "first"])
def test_training_moves_coordinates_of_trained_weights(where: str, saved: Callable[..., str]) -> None:
    built = build(where=where, coords="xyr", weights=saved(shake(build(**PLAIN))), small_images=False)
    (layer,) = coordconv_layers(built).values()
    assert isinstance(layer, CoordConv2d)
    before = layer.coord_weight.detach().clone()
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    for _ in range(2):  # of the stem's five new channels, the weights behind them have to move first
        optimizer.zero_grad()
        F.cross_entropy(built(images(32)), torch.tensor([0, 1])).backward()
        optimizer.step()
    moved = (layer.coord_weight.detach() - before).abs().amax(dim=(2, 3))
    assert (moved > 0).all()


def test_stem_is_the_papers_layer(saved: Callable[..., str]) -> None:
    for weights in (None, saved(shake(build(**PLAIN)))):
        built = build(coords="xyr", weights=weights)
        plain = tv_models.resnet18(num_classes=4)
        rest = {k: v for k, v in built.state_dict().items() if not k.startswith("conv1.")}
        plain.load_state_dict({**rest, "conv1.weight": torch.zeros(64, 3, 7, 7)})
        stem, conv = built.get_submodule("conv1.stem"), built.get_submodule("conv1.conv")
        assert isinstance(stem, CoordConv2d)
        x = images(40)
        weight = torch.cat([stem.weight, stem.coord_weight], dim=1)
        grid = coordinates((40, 40), r=True).float().expand(2, -1, -1, -1)
        eight = F.conv2d(torch.cat([x, grid], dim=1), weight, stem.bias)
        plain.conv1 = nn.Identity()
        assert isinstance(conv, nn.Conv2d)
        expected = plain.eval()(F.conv2d(eight, conv.weight, stride=2, padding=3))
        torch.testing.assert_close(built.eval()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["resnet18", "convnext_tiny"])
def test_random_stem_keeps_the_scale_of_the_first_layers_outputs(network: str) -> None:
    x = torch.randn(2, 3, 63, 63, generator=torch.Generator().manual_seed(1))
    plain, built = build(network, **PLAIN), build(network)
    name = next(name for name, layer in plain.named_modules() if isinstance(layer, nn.Conv2d))
    ratio = built.get_submodule(name)(x).std() / plain.get_submodule(name)(x).std()
    assert 0.6 < ratio < 1.7


@pytest.mark.parametrize("where", ["stem", "first", "all", "stage2.*branch1"])
def test_arms_differ_by_coordinate_weights_alone(where: str, saved: Callable[..., str]) -> None:
    network = "shufflenet_v2_x0_5"
    for weights in (None, saved(shake(build(network, **PLAIN)))):
        arms = {
            coords: build(network, where=where, coords=coords, weights=weights).state_dict()
            for coords in ("none", "xyr")
        }
        extra = arms["xyr"].keys() - arms["none"].keys()
        assert extra
        assert all(name.endswith("coord_weight") for name in extra)
        for name, value in arms["none"].items():
            assert torch.equal(value, arms["xyr"][name]), name


# ------------------------------------------------------------------ files of weights


def holders(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """A network's weights as other programs write them."""
    metrics = {"val_accuracy.total": torch.zeros(3)}
    return {
        "lightning": {"state_dict": {**{f"network.{k}": v for k, v in state.items()}, **metrics}, "epoch": 3},
        "parallel": {f"module.{k}": v for k, v in state.items()},
        "compiled": {"state_dict": {f"model._orig_mod.{k}": v for k, v in state.items()}},
        "torchvision": {"model": OrderedDict(state), "epoch": 3, "model_ema": OrderedDict(state)},
    }


@pytest.mark.parametrize("holder", ["lightning", "parallel", "compiled", "torchvision"])
def test_checkpoints_of_other_programs_load(holder: str, tmp_path: Path) -> None:
    trained = shake(build("squeezenet1_1", **PLAIN))
    torch.save(holders(trained.state_dict())[holder], tmp_path / "last.ckpt")
    built = build("squeezenet1_1", weights=tmp_path / "last.ckpt", **PLAIN).eval()
    torch.testing.assert_close(built(images(32)), trained(images(32)))


@pytest.mark.parametrize("where", ["stem", "first"])
@pytest.mark.parametrize("before", ["none", "xyr"])
def test_weights_of_this_application_load_with_their_coordinates(
    where: str, before: Coords, saved: Callable[..., str]
) -> None:
    trained = shake(build(where=where, coords=before))
    built = build(where=where, coords="xyr", weights=saved(trained)).eval()
    torch.testing.assert_close(built(images(32)), trained(images(32)))


def test_weights_of_a_network_whose_layers_have_versions_load(tmp_path: Path) -> None:
    trained = shake(build("mnasnet0_5", **PLAIN))
    torch.save(trained.state_dict(), tmp_path / "a.pth")
    built = build("mnasnet0_5", weights=tmp_path / "a.pth", **PLAIN).eval()
    torch.testing.assert_close(built(images(32)), trained(images(32)))


def test_densenet_weights_with_the_names_of_before_2018_load(tmp_path: Path) -> None:
    trained = shake(build("densenet121", **PLAIN))
    old = {
        name.replace(".norm1.", ".norm.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.")
        .replace(".conv2.", ".conv.2."): value
        for name, value in trained.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")
    built = build("densenet121", weights=tmp_path / "old.pth", **PLAIN).eval()
    torch.testing.assert_close(built(images(32)), trained(images(32)))


@pytest.mark.parametrize(("network", "head"), [("resnet18", "fc"), ("squeezenet1_0", "classifier.1")])
def test_another_number_of_classes_gets_a_new_head(
    network: str,
    head: str,
    saved: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = saved(shake(build(network, 4, **PLAIN)))
    same, other = build(network, 4, weights=path, **PLAIN), build(network, 6, weights=path, **PLAIN)
    assert caplog.messages == [f"weights: the last layer {head} is new: 6 classes, the weights have 4"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    build(network, 6, weights=path, **PLAIN)
    assert len(caplog.messages) == 1, "the first process alone says so"
    random, kept = build(network, 6, **PLAIN).state_dict(), same.state_dict()
    for name, value in other.state_dict().items():
        expected = random if name.startswith(f"{head}.") else kept
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("network", ["googlenet", "inception_v3"])
def test_auxiliary_heads_in_a_file_are_left_out(network: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        full = tv_models.get_model(network, num_classes=4, aux_logits=True, init_weights=False)
    names = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in full.state_dict().items()}
    assert any(name.startswith(("aux1", "AuxLogits")) for name in names)
    torch.save(names, tmp_path / "full.pth")
    built = build(network, weights=tmp_path / "full.pth", **PLAIN)
    assert not any(value.any() for value in built.state_dict().values())


def test_weights_of_the_library_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = shake(tv_models.resnet18()).state_dict()
    put_in_cache(tv_models.ResNet18_Weights.IMAGENET1K_V1, stored, tmp_path, monkeypatch)
    expected = tv_models.resnet18().eval()
    expected.load_state_dict(stored)
    for name in ("default", "IMAGENET1K_V1"):
        built = build("resnet18", 1000, weights=name, coords="xyr").eval()
        torch.testing.assert_close(built(images(32)), expected(images(32)), rtol=1e-4, atol=1e-5)
    built = build("resnet18", 6, weights="default", where="first", coords="xy").eval()
    expected.fc = copy.deepcopy(built.get_submodule("fc"))
    assert built(images(32)).shape == (2, 6)
    torch.testing.assert_close(built(images(32)), expected(images(32)), rtol=1e-4, atol=1e-5)


def test_a_pickle_in_the_cache_of_weights_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put_in_cache(tv_models.ResNet18_Weights.DEFAULT, {"a": Planted(tmp_path / "ran")}, tmp_path, monkeypatch)
    message = rf"^weights='DEFAULT': cannot be downloaded or read \({file} contains more than tensors and plain values"
    with pytest.raises(ValueError, match=message) as caught:
        build(weights="default")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------ small images


def test_resnets_for_small_images_begin_at_full_resolution() -> None:
    with torch.device("meta"):
        built = build("resnet18", small_images=True, **PLAIN)
        first, pool = built.get_submodule("conv1"), built.get_submodule("maxpool")
        assert isinstance(first, nn.Conv2d)
        assert (first.kernel_size, first.stride, first.padding, first.bias) == ((3, 3), (1, 1), (1, 1), None)
        assert isinstance(pool, nn.Identity)
        assert built.get_submodule("layer1")(pool(first(torch.rand(1, 3, 32, 32)))).shape[-2:] == (32, 32)


def test_weights_of_small_images_load(saved: Callable[..., str]) -> None:
    trained = shake(build(small_images=True, coords="xyr"))
    built = build(small_images=True, coords="xyr", weights=saved(trained)).eval()
    torch.testing.assert_close(built(images(16)), trained(images(16)))


# ------------------------------------------------------------------ timm


def test_networks_of_timm_are_created_by_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def create_model(name: str, **arguments: object) -> nn.Module:
        asked.append((name, arguments))
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))

    fake = types.ModuleType("timm")
    fake.create_model, fake.list_models = create_model, lambda: ["tiny", "small"]  # type: ignore[attr-defined]
    fake.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "timm", fake)
    built = build("timm/tiny", coords="xy", network_args={"drop_rate": 0.1})
    assert built(images(8)).shape == (2, 4)
    assert list(coordconv_layers(built)) == ["0.stem"]
    build("timm/tiny.trained_well", weights="default")
    assert asked == [
        ("tiny", {"pretrained": False, "num_classes": 4, "drop_rate": 0.1}),
        ("tiny.trained_well", {"pretrained": True, "num_classes": 4}),
    ]
    with pytest.raises(ValueError, match="network='timm/tinny' is unknown; closest: timm/tiny"):
        build("timm/tinny")


def test_missing_timm_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"^network='timm/resnet18' needs timm: pip install 'coordconv-apps\[timm\]'$"):
        build("timm/resnet18")


def test_torchvisions_networks_need_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    build()


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "resnet81"}, r"^network='resnet81' is unknown; closest: resnet18, resnet\d+, resnet\d+$"),
        ({"network": "resnet18.v2"}, r"^network='resnet18\.v2' is unknown; closest: resnet18, "),
        ({"num_classes": 1}, "^num_classes=1: must be an integer of at least 2$"),
        ({"network": "alexnet", "small_images": True}, "^small_images=True: must be false for network='alexnet'"),
        ({"small_images": True, "weights": "default"}, "^small_images=True: must be false with weights='DEFAULT'"),
        ({"weights": "no/file.pt"}, "^weights='no/file.pt': must be a file .* of resnet18: default, IMAGENET1K_V1$"),
        ({"network_args": {"depth": 3}}, r"^network_args=\{'depth': 3\}: resnet18 does not take them: .*'depth'$"),
        (
            {"network_args": {"weights": "DEFAULT"}},
            r"^network_args=\{'weights': .*\}: must be without 'weights'; weights ",
        ),
        ({"network_args": {"pretrained": True}}, r"^network_args=\{.*\}: must be without 'pretrained'; "),
        ({"network": "timm/a", "network_args": {"checkpoint_path": "a.pth"}}, "must be without 'checkpoint_path'; "),
        (
            {"network": "timm/a", "network_args": {"pretrained_cfg_overlay": 1}},
            "must be without 'pretrained_cfg_overlay",
        ),
        ({"network": "timm/a", "network_args": {"cache_dir": "a"}}, "must be without 'cache_dir'; "),
        ({"where": "layer9", "coords": "xy"}, "^where='layer9' selects no plain convolution"),
        ({"where": "layer9", "coords": "none"}, "^where='layer9' selects no plain convolution"),
        ({"where": "(", "coords": "xy"}, r"^where='\(' is not 'first', 'all' or a regular expression"),
        ({"where": "first", "coords": "yx"}, "^coords='yx' must be letters of"),
        ({"coords": "yx"}, "^coords='yx' must be letters of"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        build(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(saved: Callable[..., str]) -> None:
    path = saved(build("resnet34", **PLAIN))
    with pytest.raises(ValueError, match=r"must be of the same network: layer1\.2\..* more not in the network$"):
        build(weights=path)
    with pytest.raises(ValueError, match=r"must be of the same network: conv1\.weight of another shape$"):
        build("resnet34", weights=path, small_images=True)
    path = saved(build(coords="xyr"))
    with pytest.raises(ValueError, match=r"conv1\.stem\.coord_weight not in the network$"):
        build(weights=path)


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"^weights='.*': must be a file"):
        build(weights=path)
    torch.save({"state_dict": nn.Linear(2, 2)}, path)  # a whole object could run anything when it is opened
    with pytest.raises(
        ValueError, match=r"^weights='.*': must be a file of tensors and plain values, which torch\.load"
    ):
        build(weights=path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match=r"^weights='.*': must hold a state dict$"):
        build(weights=path)


def test_failed_download_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(weights: tv_models.WeightsEnum, **_: bool) -> dict[str, Tensor]:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(tv_models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match=r"^weights='DEFAULT': cannot be .* \(.*no route to host.*\); a file works"):
        build(weights="default")


@pytest.mark.parametrize("first", [nn.Conv2d(1, 4, 3), nn.Conv2d(3, 6, 3, groups=3)])
def test_stem_needs_a_network_that_takes_images(first: nn.Conv2d) -> None:
    with pytest.raises(ValueError, match=r"^where='stem': must be 'first', 'all' or a regular expression"):
        add_stem(nn.Sequential(first), "xyr", keep_outputs=False)


def test_stem_does_not_touch_trained_layers_with_a_forward_of_their_own() -> None:
    class Standardised(nn.Conv2d):
        pass

    with pytest.raises(ValueError, match=r"^where='stem': .*Standardised$"):
        add_stem(nn.Sequential(Standardised(3, 4, 3)), "xyr", keep_outputs=True)

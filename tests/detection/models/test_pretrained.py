"""Trained weights: the same network as torchvision's builders make, from a file or by name."""

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.ops.misc import FrozenBatchNorm2d

import detection
from detection.models.coord_layers import add_coords
from detection.models.detectors import build_detector
from detection.models.pretrained import EXACT_NORM, load_pretrained
from tests.helpers.hub_cache import put_in_cache
from tests.helpers.planted import Planted

MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
State = dict[str, Tensor]


def noisy_state(network: nn.Module) -> State:
    """Weights of a network of which no two are alike, with small variances in the batch norm layers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            value = noise.square() * 1e-3 + 1e-3 if name.endswith("running_var") else noise * 0.05
        state[name] = value
    return state


def published(monkeypatch: pytest.MonkeyPatch, state: State) -> list[str]:
    """Let torchvision's weights be a state, without a download; return the names of those that are asked for."""
    asked: list[str] = []

    def get_state_dict(weights: tv_models.WeightsEnum, *_: object, **__: object) -> State:
        asked.append(weights.name)
        return state

    monkeypatch.setattr(tv_models.WeightsEnum, "get_state_dict", get_state_dict)
    return asked


def trained_parts(network: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("name", "layers"), [(MOBILE, 3), (MOBILE, 0), ("fasterrcnn_resnet50_fpn", 3), ("fasterrcnn_resnet50_fpn_v2", 2)]
)
def test_networks_are_frozen_as_torchvision_freezes_them(
    name: str, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = "resnet50" if "resnet50" in name else "mobilenet_v3_large"
    with torch.device("meta"):
        published(monkeypatch, tv_models.get_model(trunk).state_dict())
        reference = tv_models.get_model(name, weights_backbone="DEFAULT", trainable_backbone_layers=layers)
        own = build_detector(name, num_classes=90, network_args={"trainable_backbone_layers": layers})
    assert trained_parts(own) == trained_parts(reference)
    assert own.state_dict().keys() == reference.state_dict().keys()
    norms = [type(m) for m in own.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert norms == [type(m) for m in reference.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert (FrozenBatchNorm2d in norms) == (not name.endswith("_v2"))


@pytest.mark.parametrize("as_file", [True, False])
def test_weights_give_the_outputs_of_torchvision(
    as_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"trainable_backbone_layers": 3, "min_size": 64, "max_size": 96}
    state = noisy_state(build_detector(MOBILE, num_classes=90, network_args=args))
    asked = published(monkeypatch, state)
    reference = tv_models.get_model(MOBILE, weights="DEFAULT", min_size=64, max_size=96).eval()
    own = build_detector(MOBILE, num_classes=90, network_args=args).eval()
    add_coords(own, "xy", "fpn_and_head", init="random")
    torch.save(state, tmp_path / "weights.pth")
    load_pretrained(own, MOBILE, str(tmp_path / "weights.pth") if as_file else "default", None)
    assert asked == ["COCO_V1"] * (1 if as_file else 2)
    images = [torch.rand(3, 64, 80), torch.rand(3, 70, 64)]
    with torch.no_grad():
        pair = torch.stack([images[0]] * 2)
        inner = [network.get_submodule("backbone")(pair) for network in (own, reference)]
        for key, value in inner[1].items():
            torch.testing.assert_close(inner[0][key], value, rtol=1e-4, atol=1e-4)
        for one, other in zip(own(images), reference(images), strict=True):
            assert len(one["boxes"]) == len(other["boxes"]) > 0
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-5)


def test_published_weights_of_old_networks_have_no_epsilon(tmp_path: Path) -> None:
    name = "fasterrcnn_resnet50_fpn"
    assert name in EXACT_NORM
    network = build_detector(name, num_classes=90, network_args={"trainable_backbone_layers": 3})
    url = tv_models.get_model_weights(name)["COCO_V1"].url
    own, published_file = tmp_path / "own.pth", tmp_path / url.rpartition("/")[2]
    torch.save(network.state_dict(), own)
    published_file.symlink_to(own)
    for path, epsilon in ((own, 1e-5), (published_file, 0.0)):
        load_pretrained(network, name, str(path), None)
        assert {m.eps for m in network.modules() if isinstance(m, FrozenBatchNorm2d)} == {epsilon}


def test_the_last_layers_are_new_for_other_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    args = {"trainable_backbone_layers": 3}
    state = noisy_state(build_detector(MOBILE, num_classes=90, network_args=args))
    torch.save({"model": state}, tmp_path / "weights.pth")  # as torchvision's references save it
    network = build_detector(MOBILE, num_classes=3, network_args=args)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_pretrained(network, MOBILE, str(tmp_path / "weights.pth"), None)
    assert "new, since the number of classes differs: roi_heads.box_predictor.cls_score.weight" in caplog.text
    for name, value in network.state_dict().items():
        new = name.startswith("roi_heads.box_predictor.")
        assert torch.equal(value, before[name] if new else state[name]), name
    monkeypatch.setenv("LOCAL_RANK", "1")
    load_pretrained(network, MOBILE, str(tmp_path / "weights.pth"), None)
    assert len(caplog.messages) == 1, "the first process alone says so"


def test_trained_coordinates_are_not_dropped(tmp_path: Path) -> None:
    network = build_detector(MOBILE, num_classes=3)
    add_coords(network, "xy", "first")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r": backbone\.body\.0\.0\.coord_weight not in the network$"):
        load_pretrained(build_detector(MOBILE, num_classes=3), MOBILE, str(tmp_path / "weights.pth"), None)


def test_backbone_weights_are_loaded(tmp_path: Path) -> None:
    trunk = tv_models.get_model("mobilenet_v3_large")
    state = noisy_state(trunk)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "trunk.pth")  # of a parallel one
    network = build_detector(MOBILE, network_args={"trainable_backbone_layers": 3})
    load_pretrained(network, MOBILE, None, str(tmp_path / "trunk.pth"))
    for name, value in network.get_submodule("backbone.body").state_dict().items():
        assert torch.equal(value, state[f"features.{name}"])


def offline(*_: object, **__: object) -> State:
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "none.pth"}, "weights='none.pth': no such file, and not one of COCO_V1, DEFAULT"),
        (
            {"weights": "COCO_V1"},
            "weights=COCO_V1: cannot be downloaded .*not known.*; without a network, put http",
        ),
        ({"weights_backbone": "DEFAULT"}, "weights_backbone=DEFAULT: cannot be downloaded"),
        ({"weights": "text.pth"}, "weights='text.pth': must be a file of tensors and plain values"),
        ({"weights": "other.pth"}, "weights='other.pth': must be of fasterrcnn_mobilenet_v3_large_320_fpn: .* not in"),
        (
            {"weights_backbone": "other.pth"},
            "weights_backbone='other.pth': must be of mobilenet_v3_large: 0.0.weight, .* not in the file",
        ),
        (
            {"weights": "DEFAULT", "weights_backbone": "DEFAULT"},
            "weights_backbone='DEFAULT': must be null",
        ),
        ({"weights": "DEFAULT", "network_args": {}}, "weights: trained weights need .*trainable_backbone_layers: 3"),
        ({"weights": "DEFAULT", "network": "paper", "network_args": None}, "network='paper' has no trained weights"),
        (
            {"network_args": {"trainable_backbone_layers": 7}},
            "trainable_backbone_layers: 7.*: must be an integer in 0 to 6",
        ),
        ({"network_args": {"trainable_backbone_layers": 2.7}}, "trainable_backbone_layers: 2.7}: must be an integer"),
        (
            {"network": "ssdlite320_mobilenet_v3_large", "network_args": {"trainable_backbone_layers": 2}},
            "ssdlite320_mobilenet_v3_large trains all of its layers; leave it out",
        ),
    ],
)
def test_invalid_weights_are_refused_in_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tv_models.WeightsEnum, "get_state_dict", offline)
    Path("text.pth").write_text("no weights")
    torch.save(nn.Conv2d(1, 1, 1).state_dict(), "other.pth")
    given = {"network": MOBILE, "num_classes": 3, "network_args": {"trainable_backbone_layers": 3}, **arguments}
    with pytest.raises(ValueError, match=message) as error:
        detection.FasterRCNN(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("argument", "network"), [("weights", MOBILE), ("weights_backbone", "mobilenet_v3_large")])
def test_a_pickle_in_the_cache_of_weights_is_not_opened(
    argument: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_file = tv_models.get_model_weights(network).DEFAULT
    file = put_in_cache(published_file, {"a": Planted(tmp_path / "ran")}, tmp_path, monkeypatch)
    given: dict[str, str | None] = {"weights": None, "weights_backbone": None, argument: "DEFAULT"}
    message = rf"^{argument}=DEFAULT: cannot be downloaded or read \({file} contains more than tensors and plain values"
    with pytest.raises(ValueError, match=message) as caught:
        load_pretrained(build_detector(MOBILE), MOBILE, **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_opens_without_the_file_of_its_weights(tmp_path: Path) -> None:
    args: dict[str, int | float] = {"trainable_backbone_layers": 3}
    torch.save(noisy_state(build_detector(MOBILE, num_classes=3, network_args=args)), tmp_path / "w.pth")
    task = detection.FasterRCNN(network=MOBILE, num_classes=3, network_args=args, weights=str(tmp_path / "w.pth"))
    assert "weights" not in task.hparams
    again = detection.FasterRCNN(**task.hparams)
    again.load_state_dict(task.state_dict())

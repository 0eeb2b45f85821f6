"""The recipe: what decays, the settings of optimizers, learning rates for large batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from classification.models import build_classifier
from classification.optimizers import make_optimizer, scaled_lr
from coordconv_apps.training.optimizers import can_fuse, parameter_groups


class Everything(nn.Module):
    """Every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.batch_norm = nn.BatchNorm2d(8)
        self.group_norm = nn.GroupNorm(2, 8)
        self.image_norm = nn.LayerNorm((8, 4, 4))
        self.rms_norm = nn.RMSNorm((4, 4))
        self.slopes = nn.PReLU(8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.shared = self.conv
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names_of_groups(model: nn.Module) -> tuple[set[str], set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    return {names[id(p)] for p in decayed["params"]}, {names[id(p)] for p in others["params"]}


def test_weights_decay_and_nothing_else_does() -> None:
    decayed, others = names_of_groups(Everything())
    assert decayed == {"conv.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    trained = {name for name, parameter in Everything().named_parameters() if parameter.requires_grad}
    assert others == trained - decayed
    assert {"class_token", "layer_scale", "slopes.weight", "image_norm.weight", "attention.in_proj_bias"} <= others


@pytest.mark.parametrize("network", ["resnet18", "convnext_tiny", "vit_b_16", "swin_v2_t"])
def test_no_network_has_a_decaying_norm_or_a_weight_that_does_not_decay(network: str) -> None:
    with torch.device("meta"):
        built = build_classifier(network, num_classes=3, coords="xyr")
    decayed, others = names_of_groups(built)
    norms = nn.modules.batchnorm._NormBase | nn.LayerNorm
    in_norms = {f"{n}.{p}" for n, m in built.named_modules() if isinstance(m, norms) for p, _ in m.named_parameters()}
    assert in_norms <= others
    assert all(name.endswith("weight") for name in decayed)
    layers = nn.Conv2d | nn.Linear
    weights = {f"{name}.weight" for name, module in built.named_modules() if isinstance(module, layers)}
    assert weights <= decayed
    assert {name for name, _ in built.named_parameters() if name.endswith("coord_weight")} <= decayed


def test_decay_shrinks_weights_alone() -> None:
    for name, factor in (("sgd", 1 - 0.5 * 0.1), ("adamw", 1 - 0.5 * 0.1)):
        model = Everything()
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizer = make_optimizer(name, model, lr=0.5, weight_decay=0.1, momentum=0.0)  # type: ignore[arg-type]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        decayed, _ = names_of_groups(model)
        for key, value in model.named_parameters():
            torch.testing.assert_close(value, before[key] * (factor if key in decayed else 1))


def test_optimizers_of_torch_get_their_settings() -> None:
    sgd = make_optimizer("sgd", nn.Linear(3, 2), 0.1, 0.01, momentum=0.8, nesterov=True, fused=True)
    assert type(sgd) is torch.optim.SGD
    assert sgd.defaults.items() >= {"lr": 0.1, "momentum": 0.8, "nesterov": True, "fused": True}.items()
    assert [group["weight_decay"] for group in sgd.param_groups] == [0.01, 0.0]
    adamw = make_optimizer("adamw", nn.Linear(3, 2), 0.1, 0.02, betas=(0.7, 0.95), momentum=0.0, nesterov=True)
    assert type(adamw) is torch.optim.AdamW
    assert adamw.defaults.items() >= {"lr": 0.1, "betas": (0.7, 0.95), "fused": False}.items()
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.02, 0.0]


@pytest.mark.parametrize(("precision", "fused"), [("16-mixed", False), ("bf16-mixed", True), ("32-true", True)])
def test_sgd_is_fused_only_where_no_step_is_skipped(precision: str, fused: bool) -> None:
    trainer = SimpleNamespace(precision=precision, gradient_clip_val=None)
    task = cast(LightningModule, SimpleNamespace(device=torch.device("cpu"), trainer=trainer))
    assert can_fuse(task, momentum=True) == fused
    assert can_fuse(task)


def test_fused_sgd_of_torch_still_needs_this_rule() -> None:
    """A first step that a gradient scaler skips leaves the momentum of torch's fused SGD uninitialised."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer, scaler = torch.optim.SGD([parameter], 0.1, momentum=0.9, fused=True), torch.amp.GradScaler("cpu")
    scaler.scale((parameter * torch.inf).sum()).backward()
    with mock.patch.object(torch, "empty_like", side_effect=lambda t: torch.full_like(t, 7.0)):
        scaler.step(optimizer)
    assert torch.equal(parameter, torch.ones(3)), "the step is skipped"
    assert optimizer.state[parameter]["momentum_buffer"].tolist() == [7.0, 7.0, 7.0], "delete the rule in can_fuse"


def test_learning_rate_grows_with_the_global_batch() -> None:
    assert scaled_lr(0.1, 256) == 0.1
    assert scaled_lr(0.1, 8192) == pytest.approx(3.2)  # Goyal et al. (2017), section 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nesterov": True, "momentum": 0.0}, r"model\.nesterov=True: must be false with model\.momentum=0"),
        ({"model": nn.ReLU()}, "must have a parameter to train"),
    ],
)
def test_impossible_optimizers_are_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"name": "sgd", "model": nn.Linear(2, 2), "lr": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        make_optimizer(**given)

"""The steps of a training, beside loops written by hand."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.func import functional_call

from generative.losses import reconstruction_loss
from generative.tasks import GAN, VAE
from tests.generative.tiny import METHODS, MIXED, Watch, data, fitted, task, trainer
from tests.helpers.trainers import OWN_TRAINER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from generative.tasks import GenerativeTask

pytestmark = OWN_TRAINER

EPSILON = 0.1


def assert_same_parameters(found: nn.Module, expected: nn.Module) -> None:
    for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=2e-5), name


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Adam take no notice of gradients that are rounding errors, such as those of a bias before batch norm."""
    monkeypatch.setattr(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=EPSILON))


def gan_by_hand(one: GAN, watch: Watch, arguments: dict[str, Any]) -> dict[str, nn.Module]:
    generator, discriminator, entropy = one.generator, one.discriminator, F.binary_cross_entropy_with_logits
    steps, weight = arguments.get("generator_steps", 2), arguments.get("feature_matching", 0.0)
    output = nn.Identity() if "before_tanh" in arguments else nn.Tanh()
    penalty, every = arguments.get("gradient_penalty", 0.0), arguments.get("penalty_every", 1)
    optimizers = [
        torch.optim.Adam(network.parameters(), lr, (0.5, 0.75), fused=True)
        for network, lr in ((generator, 0.2), (discriminator, 0.1))
    ]
    for number, (images, random) in enumerate(zip(watch.images, watch.random, strict=True)):
        torch.set_rng_state(random)
        images = images.contiguous(memory_format=torch.channels_last)
        ones, zeros = torch.ones(len(images)), torch.zeros(len(images))
        generated = output(generator(torch.rand(len(images), 4) * 2 - 1)).detach()
        images.requires_grad_()
        real, false = discriminator(images)[0], discriminator(generated)[0]
        loss = entropy(real, ones) + entropy(false, zeros)
        if penalty and number % every == 0:
            (gradient,) = torch.autograd.grad(real.sum(), images, create_graph=True)
            loss = loss + every * penalty * gradient.square().sum() / (2 * len(images))
        discriminator.zero_grad()
        loss.backward()
        optimizers[1].step()
        for _ in range(steps):
            logits, features = discriminator(output(generator(torch.rand(len(images), 4) * 2 - 1)))
            loss = entropy(logits, ones)
            if weight:
                aim = discriminator(images.detach())[1].detach().mean(0)
                loss = loss + weight * (features.mean(0) - aim).square().mean()
            generator.zero_grad()
            loss.backward()
            optimizers[0].step()
    return {"generator": generator, "discriminator": discriminator}


@pytest.mark.parametrize(
    "arguments",
    [
        {"network": "conv"},
        {"generator_steps": 1, "gradient_penalty": 0.5, "penalty_every": 2, "norm": False},
        {"feature_matching": 3.0, "discriminator_coords": True, "generator_steps": 3},
        {"before_tanh": True},
    ],
    ids=["paper", "penalty", "features", "before-tanh"],
)
@pytest.mark.usefixtures("calm")
def test_steps_of_a_gan_are_those_of_a_loop_by_hand(tmp_path: Path, arguments: dict[str, Any]) -> None:
    seed_everything(0)
    one = task(lr=0.2, discriminator_lr=0.1, beta1=0.5, beta2=0.75, **arguments)
    start = copy.deepcopy(one)
    watch = fitted(tmp_path, one)
    assert len(watch.images) == 3
    for name, network in gan_by_hand(start, watch, arguments).items():
        assert_same_parameters(getattr(one, name), network)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    "arguments", [{}, {"reconstruction": "squared", "kl_weight": 0.5, "kl_warmup": 0.5, "network": "conv"}]
)
def test_steps_of_a_vae_are_those_of_a_loop_by_hand(tmp_path: Path, arguments: dict[str, Any]) -> None:
    seed_everything(0)
    one = task(method=VAE, lr=0.05, beta1=0.5, beta2=0.75, **arguments)
    start = copy.deepcopy(one)
    watch = fitted(tmp_path, one, max_epochs=2)
    parameters = [*start.generator.parameters(), *start.encoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.05, (0.5, 0.75), fused=True)
    # Half of the 6 steps: the weight climbs from 0, and is whole from the fourth step on.
    factors = [0, 1 / 3, 2 / 3, 1, 1, 1] if "kl_warmup" in arguments else [1] * 6
    for images, random, factor in zip(watch.images, watch.random, factors, strict=True):
        torch.set_rng_state(random)
        mean, log_variance = start.encoder(images.contiguous(memory_format=torch.channels_last))
        deviation = (log_variance / 2).exp()
        outputs = start.generator(mean + torch.randn_like(mean) * deviation)
        normal = torch.distributions.Normal(mean, deviation)
        standard = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        divergence = torch.distributions.kl_divergence(normal, standard).sum(1).mean()
        loss = reconstruction_loss(arguments.get("reconstruction", "bernoulli"), outputs, images).mean()
        loss = loss + factor * arguments.get("kl_weight", 1.0) * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name in ("generator", "encoder"):
        assert_same_parameters(getattr(one, name), getattr(start, name))


@pytest.mark.parametrize("mixed", MIXED)
def test_mixed_precision_takes_the_weights_of_each_moment(tmp_path: Path, mixed: str) -> None:
    """Autocast keeps rounded weights; those of the step before must not be taken again, nor those without gradients."""
    seed_everything(0)
    one = task(lr=0.1, discriminator_lr=0.1, network="conv")
    calls: list[tuple[nn.Module, dict[str, Tensor], Tensor, Tensor]] = []

    def keep(network: nn.Module, inputs: tuple[Tensor], outputs: Any) -> None:  # noqa: ANN401  # of two networks
        state = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        images = outputs[0] if isinstance(outputs, tuple) else outputs
        calls.append((network, state, inputs[0].detach().clone(), images.detach().clone()))

    hooks = [network.register_forward_hook(keep) for network in (one.generator, one.discriminator)]
    fitted(tmp_path, one, **MIXED[mixed])
    for hook in hooks:
        hook.remove()
    assert len(calls) == 3 * (3 + 4)
    for network, state, inputs, outputs in calls:
        assert outputs.dtype == torch.bfloat16
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            again = functional_call(network, state, inputs)
        again = again[0] if isinstance(again, tuple) else again
        torch.testing.assert_close(again, outputs, rtol=0.02, atol=0.02 * outputs.abs().max().item())


def test_generators_steps_cost_no_gradients_of_the_discriminator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task()
    seen: list[tuple[bool, bool]] = []
    update = one._optimize

    def watched(optimizer: Any, loss: Tensor) -> None:  # noqa: ANN401  # handed on as it is
        seen.append(
            tuple(all(p.requires_grad for p in part.parameters()) for part in (one.generator, one.discriminator))  # type: ignore[arg-type]
        )
        update(optimizer, loss)

    monkeypatch.setattr(one, "_optimize", watched)
    trainer(tmp_path, limit_train_batches=1).fit(one, data())
    assert seen == [(True, True), (True, False), (True, False)]


@METHODS
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train_and_validate(tmp_path: Path, method: type[GenerativeTask], precision: Any) -> None:  # noqa: ANN401
    seed_everything(0)
    one = task(method=method, average=0.9)
    before = {name: p.detach().clone() for name, p in one.named_parameters() if p.requires_grad}
    run = trainer(tmp_path, precision=precision, limit_val_batches=1.0)
    run.fit(one, data())
    assert all(value.isfinite() for value in run.callback_metrics.values())
    kind = torch.float64 if precision == "64-true" else torch.float32
    for name, parameter in one.named_parameters():
        assert parameter.dtype == kind
        assert parameter.isfinite().all()
        if parameter.requires_grad:
            assert not torch.equal(parameter, before[name].to(kind)), name


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides it from users
@pytest.mark.parametrize("arguments", [{}, {"gradient_penalty": 1.0, "norm": False}, {"method": VAE}])
def test_compiled_networks_train_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """All but the compiler of machine code, which takes long."""
    compile_ = torch.compile
    compiled: list[str] = []

    def without_machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(type(getattr(function, "__self__", None)).__name__)
        return compile_(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", without_machine_code)
    states = []
    for compiling in (False, True):
        seed_everything(0)
        one = task(compile=compiling, average=0.5, lr=0.01, **arguments)
        states.append(fitted(tmp_path, one, limit_train_batches=2).states[-1])
        images = one.sample(one.draw_latents(2, 0))
    torch.compiler.reset()
    assert images.shape == (2, 3, 16, 16)
    assert compiled[0] == "CoordConvGenerator"
    if "gradient_penalty" not in arguments:  # a gradient of a gradient, which compiled networks may not have
        assert compiled[1:] == ["Encoder" if "method" in arguments else "Discriminator"]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-3)

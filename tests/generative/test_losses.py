"""The losses, against formulas and torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generative.losses import (
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
)
from generative.models import build_discriminator


def logits(number: int = 50, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return scale * torch.randn(number), scale * torch.randn(number)


def images(number: int = 4, size: int = 8, **arguments: Any) -> Tensor:  # noqa: ANN401  # handed on as they are
    torch.manual_seed(1)
    return torch.rand(number, 3, size, size, **arguments) * 2 - 1


# ------------------------------------------------------------------ adversarial


def test_losses_are_cross_entropies() -> None:
    real, generated = logits()
    ones, zeros = torch.ones(50), torch.zeros(50)
    entropy = F.binary_cross_entropy_with_logits
    expected = entropy(real, ones) + entropy(generated, zeros)
    torch.testing.assert_close(discriminator_loss(real, generated), expected)
    torch.testing.assert_close(generator_loss(generated), entropy(generated, ones))


def test_losses_of_a_sure_discriminator_are_finite_and_their_gradients_do_not_vanish() -> None:
    sure = torch.tensor([200.0], requires_grad=True)
    unreal = torch.tensor([-200.0], requires_grad=True)
    assert discriminator_loss(sure, unreal).item() == 0
    loss = generator_loss(unreal)
    assert loss.item() == pytest.approx(200)
    assert torch.autograd.grad(loss, unreal)[0].item() == pytest.approx(-1)
    wrong = discriminator_loss(unreal, sure)
    assert wrong.item() == pytest.approx(400)


# ------------------------------------------------------------------ gradient penalty


def test_penalty_is_a_mean_over_images() -> None:
    batch = images(4).double().requires_grad_()
    # Of logits = a |x|^2 the gradient is 2 a x, with another a for each image.
    factors = torch.tensor([0.0, 1.0, 2.0, -3.0], dtype=torch.float64)
    penalty = gradient_penalty(factors * batch.square().sum((1, 2, 3)), batch)
    lengths = (2 * factors.view(4, 1, 1, 1) * batch.detach()).square().sum((1, 2, 3))
    assert penalty.item() == pytest.approx(lengths.mean().item() / 2, rel=1e-5)


def test_penalty_of_a_network_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(0)
    network = build_discriminator("xy", image_size=8, width=2, norm=True).double()
    batch = images(3).double().requires_grad_()

    def penalty() -> Tensor:
        return gradient_penalty(network(batch)[0], batch)

    penalty().backward()
    weight = network.last.weight
    assert weight.grad is not None
    step = 0.1  # it is a square of this weight: the difference is exact
    with torch.no_grad():
        weight[0, 3] += step
    after = penalty().item()
    with torch.no_grad():
        weight[0, 3] -= 2 * step
    before = penalty().item()
    # The gradient is cast to float32 on its way.
    assert weight.grad[0, 3].item() == pytest.approx((after - before) / (2 * step), rel=1e-3, abs=1e-5)


# ------------------------------------------------------------------ feature matching


def test_feature_matching_loss_is_between_means() -> None:
    torch.manual_seed(0)
    network = build_discriminator("none", image_size=8, width=3, norm=False)
    real, generated = images(6), images(9).flip(0)
    _, features = network(generated)
    distance = feature_matching_loss(network, features, real)
    _, wanted = network(real)
    expected = (features.mean(0) - wanted.mean(0)).square().mean()
    torch.testing.assert_close(distance, expected)
    assert distance.item() > 0
    _, same = network(real)
    assert feature_matching_loss(network, same, real).item() == 0


def test_feature_matching_loss_of_half_precision_is_computed_in_single() -> None:
    """Means of 100 and of 100.1 are the same number in bfloat16."""
    generated, real = torch.full((8, 5), 100.0), torch.full((8, 5), 100.0)
    real[:2] = 100.5
    aim = real.bfloat16().float().mean(0)

    def discriminator(_: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(8), real.bfloat16()

    found = feature_matching_loss(discriminator, generated.bfloat16(), images())  # type: ignore[arg-type]  # like one
    assert found.item() == pytest.approx((aim - 100.0).square().mean().item(), rel=1e-6)
    assert found.item() > 0


def test_feature_matching_loss_goes_to_the_generator_alone() -> None:
    network = build_discriminator("none", image_size=8, width=3, norm=False)
    real = images(6).requires_grad_()
    generated = images(6).flip(0).detach().requires_grad_()
    _, features = network(generated)
    toward_real, toward_generated = torch.autograd.grad(
        feature_matching_loss(network, features, real), [real, generated], allow_unused=True
    )
    assert toward_real is None
    assert toward_generated.any()


# ------------------------------------------------------------------ reconstruction


def test_reconstruction_is_the_weighted_cross_entropy_of_the_brightness_that_is_drawn() -> None:
    outputs, batch = 2 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), images()
    drawn = ((torch.tanh(outputs.double()) + 1) / 2).clamp(1e-300, 1)
    black = ((torch.tanh(-outputs.double()) + 1) / 2).clamp(1e-300, 1)
    aim = (batch.double() + 1) / 2
    of_channels = -(aim * drawn.log() + (1 - aim) * black.log()).sum((2, 3))
    expected = of_channels @ torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)
    losses = reconstruction_loss("bernoulli", outputs, batch, (1.0, 0.5, 3.0))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-4)


def test_reconstruction_is_a_likelihood_of_torchs_distributions() -> None:
    outputs, batch = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), images()
    dots = (batch > 0).float()
    bernoulli = torch.distributions.Bernoulli(logits=2 * outputs).log_prob(dots)
    losses = reconstruction_loss("bernoulli", outputs, 2 * dots - 1)
    torch.testing.assert_close(losses, -bernoulli.sum((1, 2, 3)))
    normal = torch.distributions.Normal(outputs.tanh(), torch.ones(())).log_prob(batch)
    constant = 3 * 8 * 8 * math.log(2 * math.pi) / 2
    losses = reconstruction_loss("squared", outputs, batch)
    torch.testing.assert_close(losses, -normal.sum((1, 2, 3)) - constant)


@pytest.mark.parametrize("kind", ["bernoulli", "squared"])
def test_losses_of_half_precision_are_summed_in_single(kind: Any) -> None:  # noqa: ANN401  # parametrised
    outputs, batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), images(2, 64)
    losses = reconstruction_loss(kind, outputs.bfloat16(), batch)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, reconstruction_loss(kind, outputs.bfloat16().float(), batch))

"""The networks: numbers of parameters, independent versions of the generators, sizes, weights to start from."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coordconv_apps import CoordConv2d, CoordConvTranspose2d
from coordconv_apps.nn.parameter_budget import parameter_count
from generative.models import (
    ConvGenerator,
    CoordConvGenerator,
    Network,
    Posterior,
    build_discriminator,
    build_encoder,
    build_generator,
)
from tests.nn.reference import concatenated, coordinates

if TYPE_CHECKING:
    from coordconv_apps.nn.coords import Coords

NETWORKS: tuple[Network, ...] = ("coordconv", "conv", "budget")
EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS)
EVERY_COORDS = pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
PAPER: dict[str, Any] = {"latent_size": 25, "image_size": 64, "width": 64}
TINY: dict[str, Any] = {"latent_size": 5, "image_size": 16, "width": 3}


def size_of(network: Network, coords: Coords, **sizes: int) -> int:
    with torch.device("meta"):
        return parameter_count(build_generator(network, coords, **{**PAPER, **sizes}))


def randomized(network: nn.Module) -> nn.Module:
    """In double precision, with biases that are not zero, and factors of batch norm that are not one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.double().parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def coordconv_count(latent_size: int, w: int, coords: int = 2) -> int:
    channels = [latent_size + coords, 8 * w, 4 * w, 4 * w, 2 * w, w]
    points = sum(i * o + o for i, o in itertools.pairwise(channels))
    return points + 2 * (9 * w * w + w) + 3 * w + 3


def conv_count(latent_size: int, image_size: int, w: int) -> int:
    channels = [w << step for step in reversed(range(int(math.log2(image_size)) - 2))]
    layers = sum(25 * i * o + o for i, o in itertools.pairwise([*channels, 3]))
    return (latent_size + 1) * 16 * channels[0] + layers + 2 * sum(channels)


# ------------------------------------------------------------------ the paper's numbers of parameters


def test_the_papers_generators_have_the_papers_size() -> None:
    conv, coordconv = size_of("conv", "none"), size_of("coordconv", "xy")
    assert conv == conv_count(25, 64, 64) == 4_520_963
    assert coordconv == coordconv_count(25, 64) == 326_659
    assert conv == pytest.approx(4.5e6, rel=0.01)
    assert 100 * coordconv / conv == pytest.approx(7, abs=0.5)


@pytest.mark.parametrize(("latent_size", "image_size", "width"), [(8, 8, 4), (3, 128, 8)])
def test_parameter_counts_follow_the_formulas(latent_size: int, image_size: int, width: int) -> None:
    sizes = {"latent_size": latent_size, "image_size": image_size, "width": width}
    for coords, channels in (("none", 0), ("xy", 2), ("xyr", 3)):
        assert size_of("coordconv", coords, **sizes) == coordconv_count(latent_size, width, channels)  # type: ignore[arg-type]
    assert size_of("conv", "none", **sizes) == conv_count(latent_size, image_size, width)


@pytest.mark.parametrize(("image_size", "width"), [(64, 64), (16, 7), (8, 4)])
def test_budget_takes_as_many_channels_as_fit(image_size: int, width: int) -> None:
    budget = coordconv_count(25, width)
    with torch.device("meta"):
        built = build_generator("budget", "none", latent_size=25, image_size=image_size, width=width)
    channels = next(layer for layer in reversed(list(built.modules())) if isinstance(layer, nn.BatchNorm2d))
    count = parameter_count(built)
    assert count == conv_count(25, image_size, channels.num_features)
    assert count <= budget < conv_count(25, image_size, channels.num_features + 1)
    if width == 64:
        assert count > 0.85 * budget, "near it"


def test_the_papers_discriminator_has_the_papers_size() -> None:
    channels = [3, 64, 128, 256, 512]
    layers = sum(25 * i * o + o for i, o in itertools.pairwise(channels))
    for norm in (True, False):
        count = layers + (2 * (128 + 256 + 512) if norm else 0) + 16 * 512 + 1
        with torch.device("meta"):
            assert parameter_count(build_discriminator("none", image_size=64, width=64, norm=norm)) == count
            with_coords = build_discriminator("xy", image_size=64, width=64, norm=norm)
        assert parameter_count(with_coords) == count + 2 * 64 * 25


def test_the_encoders_parameter_count_follows_the_formula() -> None:
    layers = sum(25 * i * o + o for i, o in itertools.pairwise([3, 8, 16, 32]))
    with torch.device("meta"):
        built = build_encoder("none", latent_size=6, image_size=32, width=8)
    assert parameter_count(built) == layers + (16 * 32 + 1) * 2 * 6


# ------------------------------------------------------------------ the same networks, independently


def repeated_and_concatenated(weights: dict[str, Tensor], latents: Tensor, size: int, coords: Coords) -> Tensor:
    """Latents repeated over the image, coordinate channels appended, then plain convolutions."""
    hidden = latents[:, :, None, None].repeat(1, 1, size, size)
    weight = weights["first.weight"]
    if coords != "none":
        grid = coordinates((size, size), r=coords == "xyr")
        hidden = torch.cat([hidden, grid.repeat(len(latents), 1, 1, 1)], 1)
        weight = torch.cat([weight, weights["first.coord_weight"]], 1)
    hidden = F.conv2d(hidden, weight, weights["first.bias"])
    for layer in (1, 3, 5, 7, 9, 11, 13):
        kernel = weights[f"rest.{layer}.weight"]
        hidden = F.conv2d(hidden.relu(), kernel, weights[f"rest.{layer}.bias"], padding=kernel.shape[-1] // 2)
    return hidden


@EVERY_COORDS
@pytest.mark.parametrize("training", [True, False])
def test_the_coordconv_generator_equals_concatenation(coords: Coords, training: bool) -> None:
    network = randomized(build_generator("coordconv", coords, **TINY)).train(training)
    latents = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    images, expected = network(latents), repeated_and_concatenated(weights, latents, 16, coords)
    torch.testing.assert_close(images, expected, rtol=1e-10, atol=1e-10)
    assert expected.std((2, 3)).min() > 1e-3, "a test of nothing else"
    found = torch.autograd.grad((images * probe).sum(), [latents, *network.parameters()])
    wanted = torch.autograd.grad((expected * probe).sum(), [latents, *weights.values()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("coords", ["none", "xy"])
def test_the_first_layer_is_trained_on_latents_once_an_image(coords: Coords) -> None:
    """By the number of multiplications, forward and backward; repeated, it would take as many for every pixel."""
    network = build_generator("coordconv", coords, latent_size=25, image_size=16, width=2)
    assert isinstance(network, CoordConvGenerator)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(4, 25)).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counts.items() if "convolution" not in str(operation))
    assert products == 2 * 2 * 4 * 25 * 16, "two for a multiplication; outputs, and gradients of the weight"
    kernels = [weight for weight in network.rest.parameters() if weight.ndim == 4]
    of_pixels = 2 * 4 * 256 * sum(kernel.numel() for kernel in kernels)
    assert sum(counts.values()) - products == 3 * of_pixels


def test_the_first_layer_costs_no_copies_of_views() -> None:
    """Which autograd makes of views that change in place, in training at a seventh of its time."""
    output = build_generator("coordconv", "xy", **TINY)(torch.rand(2, 5))
    names, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(type(node).__name__)
        nodes += [before for before, _ in node.next_functions if before is not None]
    assert {"ConvolutionBackward0", "ReluBackward0"} <= names, "a test of nothing else"
    assert "CopySlices" not in names


@pytest.mark.parametrize("how", ["weights", "autocast"])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_does_not_move_coordinates(how: str, training: bool) -> None:
    """A difference of position and bias, which is small near the right edge, is as exact there as anywhere."""
    network = build_generator("coordconv", "xy", latent_size=5, image_size=64, width=1).train(training)
    assert isinstance(network, CoordConvGenerator)
    assert isinstance(network.first, CoordConv2d)
    with torch.no_grad():
        network.first.coord_weight[:, 0], network.first.coord_weight[:, 1] = -1.0, 0.0
        network.first.bias.fill_(1.0)  # type: ignore[union-attr]
    seen: list[Tensor] = []
    network.rest.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    latents = torch.zeros(2, 5)
    if how == "weights":
        network.bfloat16()(latents.bfloat16())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            network(latents)
    expected = (1 - torch.linspace(-1, 1, 64)).expand(2, 8, 64, 64)
    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(seen[0].float(), expected, rtol=2**-8, atol=1e-6)
    coarse = 1 - torch.linspace(-1, 1, 64).bfloat16().float()
    assert not torch.allclose(coarse, expected[0, 0, 0], rtol=2**-8, atol=1e-6), "a test of nothing else"


def normalised(layer: nn.BatchNorm2d, hidden: Tensor) -> Tensor:
    """Batch norm by the statistics of the batch."""
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), unbiased=False, keepdim=True)
    factor, bias = layer.weight.view(1, -1, 1, 1), layer.bias.view(1, -1, 1, 1)
    return (hidden - mean) / (variance + layer.eps).sqrt() * factor + bias


@EVERY_COORDS
def test_the_conv_generator_equals_an_independent_one(coords: Coords) -> None:
    network = randomized(build_generator("conv", coords, **TINY))
    assert isinstance(network, ConvGenerator)
    latents = torch.randn(4, 5, dtype=torch.float64)
    hidden = (latents @ network.first.weight.T + network.first.bias).view(4, 6, 4, 4)
    for layer in network.rest:
        if isinstance(layer, nn.BatchNorm2d):
            hidden = normalised(layer, hidden).relu()
        elif isinstance(layer, CoordConvTranspose2d):
            hidden = concatenated(layer, hidden)
        elif isinstance(layer, nn.ConvTranspose2d):
            # Zeros between the pixels, and a convolution with the kernel turned around.
            spread = torch.zeros(*hidden.shape[:2], 2 * hidden.shape[2], 2 * hidden.shape[3], dtype=torch.float64)
            spread[:, :, ::2, ::2] = hidden
            hidden = F.conv2d(spread, layer.weight.transpose(0, 1).flip(2, 3), layer.bias, padding=2)
    torch.testing.assert_close(network(latents), hidden, rtol=1e-9, atol=1e-9)


@EVERY_COORDS
@pytest.mark.parametrize("norm", [True, False])
def test_the_discriminator_equals_an_independent_one(coords: Coords, norm: bool) -> None:
    network = build_discriminator(coords, image_size=16, width=3, norm=norm)
    randomized(network)
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64) * 2 - 1
    hidden = images
    for layer in network.features:
        if isinstance(layer, nn.BatchNorm2d):
            hidden = normalised(layer, hidden)
        elif isinstance(layer, CoordConv2d):
            hidden = concatenated(layer, hidden)
        elif isinstance(layer, nn.Conv2d):
            hidden = F.conv2d(hidden, layer.weight, layer.bias, stride=2, padding=2)
        else:
            hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    logits, features = network(images)
    torch.testing.assert_close(features, hidden.flatten(1), rtol=1e-9, atol=1e-9)
    expected = hidden.flatten(1) @ network.last.weight[0] + network.last.bias
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_batch_norm_of_the_discriminator_starts_at_the_second_layer() -> None:
    network = build_discriminator("none", image_size=16, width=4, norm=True)
    kinds = [type(layer) for layer in network.features]
    assert kinds == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]


@EVERY_COORDS
def test_the_encoder_equals_an_independent_one(coords: Coords) -> None:
    network = build_encoder(coords, latent_size=6, image_size=16, width=3)
    randomized(network)
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64) * 2 - 1
    hidden = images
    for layer in network.features:
        if isinstance(layer, CoordConv2d):
            hidden = concatenated(layer, hidden)
        elif isinstance(layer, nn.Conv2d):
            hidden = F.conv2d(hidden, layer.weight, layer.bias, stride=2, padding=2)
        else:
            hidden = hidden.clamp(min=0)
    outputs = hidden.flatten(1) @ network.last.weight.T + network.last.bias
    mean, log_variance = network(images)
    torch.testing.assert_close(mean, outputs[:, :6], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_variance, outputs[:, 6:], rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------ posteriors


def test_divergence_is_that_of_normal_distributions() -> None:
    torch.manual_seed(0)
    posterior = Posterior(2 * torch.randn(5, 7), torch.randn(5, 7))
    normal = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    standard = torch.distributions.Normal(torch.zeros(5, 7), torch.ones(5, 7))
    expected = torch.distributions.kl_divergence(normal, standard).sum(1)
    torch.testing.assert_close(posterior.kl_divergence(), expected)
    assert not Posterior(torch.zeros(2, 3), torch.zeros(2, 3)).kl_divergence().any()


def test_divergence_of_half_precision_is_computed_in_single() -> None:
    mean, log_variance = torch.full((2, 30), 0.01).bfloat16(), torch.full((2, 30), 0.02).bfloat16()
    expected = Posterior(mean.float(), log_variance.float()).kl_divergence()
    torch.testing.assert_close(Posterior(mean, log_variance).kl_divergence(), expected)


def test_draws_have_the_posteriors_mean_and_deviation() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[-3.0, 0.0, 5.0]], requires_grad=True)
    log_variance = torch.tensor([[-2.0, 0.0, 2.0]], requires_grad=True)
    many = Posterior(mean.expand(20_000, 3), log_variance.expand(20_000, 3)).sample()
    deviation = (log_variance.detach()[0] / 2).exp()
    assert ((many.mean(0) - mean[0]).abs() < 5 * deviation / 20_000**0.5).all()
    torch.testing.assert_close(many.detach().std(0), deviation, rtol=0.03, atol=0.0)
    noise = ((many - mean) / deviation).detach()
    towards_mean, towards_variance = torch.autograd.grad(many.sum(), [mean, log_variance])
    torch.testing.assert_close(towards_mean, torch.full((1, 3), 20_000.0))
    torch.testing.assert_close(towards_variance, (noise * deviation / 2).sum(0, keepdim=True), rtol=1e-3, atol=0.1)


# ------------------------------------------------------------------ sizes and gradients


@EVERY_NETWORK
@pytest.mark.parametrize("size", [8, 64])
def test_generated_images_have_the_size_asked_for(network: Network, size: int) -> None:
    images = build_generator(network, "xyr", latent_size=4, image_size=size, width=2)(torch.rand(3, 4))
    assert images.shape == (3, 3, size, size)
    assert images.isfinite().all()


@pytest.mark.parametrize("size", [8, 64])
def test_images_of_any_size_are_seen_with_coordinates_in_the_first_layer(size: int) -> None:
    images = torch.rand(3, 3, size, size)
    discriminator = build_discriminator("xyr", image_size=size, width=2, norm=False)
    logits, features = discriminator(images)
    assert logits.shape == (3,)
    assert features.shape == (3, 16 * 2 * size // 8)  # from 4 x 4, with twice the channels of half the size
    encoder = build_encoder("xyr", latent_size=5, image_size=size, width=2)
    mean, log_variance = encoder(images)
    assert mean.shape == log_variance.shape == (3, 5)
    for network in (discriminator, encoder):
        with_coords = [layer for layer in network.modules() if isinstance(layer, CoordConv2d)]
        assert [(layer.in_channels, layer.coords) for layer in with_coords] == [(3, "xyr")]


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    generators = [(build_generator(network, "xyr", **TINY), torch.rand(4, 5)) for network in NETWORKS]
    for network, inputs in [
        *generators,
        (build_discriminator("xyr", image_size=16, width=3, norm=True), images),
        (build_discriminator("xyr", image_size=16, width=3, norm=False), images),
        (build_encoder("xyr", latent_size=5, image_size=16, width=3), images),
    ]:
        outputs = network(inputs)
        outputs = outputs if isinstance(outputs, Tensor) else torch.cat([part.flatten() for part in outputs])
        (outputs * torch.randn_like(outputs)).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, (type(network), name)
            assert parameter.grad.any(), (type(network), name)


# ------------------------------------------------------------------ weights to start from


def test_networks_with_batch_norm_start_as_dcgan_does() -> None:
    torch.manual_seed(0)
    generator = build_generator("conv", "xy", latent_size=25, image_size=32, width=64)
    discriminator = build_discriminator("xy", image_size=32, width=64, norm=True)
    for network in (generator, discriminator):
        for name, layer in network.named_modules():
            for kind, parameter in layer.named_parameters(recurse=False):
                if kind == "bias":
                    assert not parameter.any(), name
                    continue
                middle = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
                few = 5 / parameter.numel() ** 0.5  # deviations of a mean
                assert abs(parameter.mean().item() - middle) < few * 0.02, (name, kind)
                assert parameter.std().item() == pytest.approx(0.02, rel=few), (name, kind)


def test_networks_without_batch_norm_start_he_normal() -> None:
    torch.manual_seed(0)
    generator = build_generator("coordconv", "xy", latent_size=25, image_size=16, width=32, gain=0.5)
    discriminator = build_discriminator("xy", image_size=16, width=64, norm=False)
    encoder = build_encoder("xy", latent_size=8, image_size=16, width=64)
    for network, gain in ((generator, 0.5), (discriminator, 1.0), (encoder, 1.0)):
        for name, layer in network.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            inputs = layer.weight[0].numel()
            if isinstance(layer, CoordConv2d):
                inputs += 2 * layer.weight[0, 0].numel()
            for kind, parameter in layer.named_parameters(recurse=False):
                if kind == "bias":
                    assert not parameter.any(), name
                    continue
                few = 5 / parameter.numel() ** 0.5
                assert parameter.std().item() == pytest.approx(gain * math.sqrt(2 / inputs), rel=few), (name, kind)


def test_same_seed_gives_the_same_weights() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        parts: list[nn.Module] = [
            *(build_generator(network, "xy", **TINY) for network in NETWORKS),
            build_discriminator("xy", image_size=16, width=3, norm=True),
            build_encoder("xy", latent_size=5, image_size=16, width=3),
        ]
        drawn.append([p.detach() for part in parts for p in part.parameters() if p.any()])
    for one, same, other in zip(*drawn, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_arms_of_one_network_differ_by_coordinate_weights_alone() -> None:
    for network, number in (("coordconv", 2 * 8 * 3), ("conv", 2 * 25 * (3 + 3))):
        with_coords, without = (build_generator(network, coords, **TINY) for coords in ("xy", "none"))  # type: ignore[arg-type]
        assert parameter_count(with_coords) - parameter_count(without) == number
        more = {name for name, _ in with_coords.named_parameters()} - {name for name, _ in without.named_parameters()}
        assert all(name.endswith(".coord_weight") for name in more)

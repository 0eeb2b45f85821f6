"""The networks: numbers of parameters, independent versions of the paper's, sizes, weights to start from."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coordconv_apps import CoordConv2d, CoordConvTranspose2d
from coordconv_apps.coordinates.models import GrowingNet, PixelClassifier, PixelRenderer, PositionNet, StridedRegressor
from coordconv_apps.nn.coords import Coords, coord_grid
from coordconv_apps.nn.parameter_budget import parameter_count
from tests.coordinates.harness import TaskName, build_network

NETWORKS: dict[TaskName, tuple[str, ...]] = {
    "classification": ("paper", "deconv", "upsample", "budget"),
    "regression": ("paper", "dense", "strided", "budget"),
    "rendering": ("paper", "deconv", "upsample", "budget"),
}
ALL = [(task, network) for task, networks in NETWORKS.items() for network in networks]
EVERY_NETWORK = pytest.mark.parametrize(("task", "network"), ALL, ids=["-".join(pair) for pair in ALL])


def inputs_of(task: TaskName, size: int, count: int = 3, objects: int = 1) -> Tensor:
    torch.manual_seed(0)
    if task == "regression":
        return torch.rand(count, 1, size, size)
    return torch.randint(size, (count, 2 * objects)).float()


def randomized(network: nn.Module) -> nn.Module:
    """With biases that are not zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


# ------------------------------------------------------------------ the paper's numbers of parameters


@pytest.mark.parametrize(("task", "count"), [("classification", 7553), ("regression", 906), ("rendering", 11_850)])
def test_the_papers_networks_have_the_papers_size(task: TaskName, count: int) -> None:
    assert parameter_count(build_network(task, "paper", "xy")) == count


@pytest.mark.parametrize(("task", "width"), [("classification", 32), ("regression", 8), ("rendering", 32)])
def test_arms_of_the_papers_network_differ_by_coordinate_weights_alone(task: TaskName, width: int) -> None:
    counts: dict[Coords, int] = {}
    for coords in ("none", "xy", "xyr"):
        counts[coords] = parameter_count(build_network(task, "paper", coords))
    assert counts["xy"] - counts["none"] == 2 * width
    assert counts["xyr"] - counts["none"] == 3 * width


def chain_count(channels: list[int], kernel_size: int, *, norms: bool = False) -> int:
    """Parameters of a chain of convolutions with biases, with batch norm behind all but the last."""
    layers = sum(i * o * kernel_size**2 + o for i, o in itertools.pairwise(channels))
    return layers + (2 * sum(channels[1:-1]) if norms else 0)


def growing_count(canvas_size: int, m: float, kernel_size: int, inputs: int = 2) -> int:
    steps = math.ceil(math.log2(canvas_size))
    channels = [inputs, *[round(64 * m)] * (steps - 3), round(32 * m), round(32 * m), 1]
    return chain_count(channels, kernel_size, norms=True)


KERNELS = pytest.mark.parametrize(
    ("network", "kernel_size"), [("deconv", 2), ("deconv", 3), ("deconv", 4), ("upsample", 3), ("upsample", 5)]
)


@KERNELS
@pytest.mark.parametrize(("canvas_size", "objects", "width"), [(64, 1, 1), (64, 1, 3), (20, 2, 2), (8, 1, 1)])
def test_size_of_the_convolution_baselines(
    network: str, kernel_size: int, canvas_size: int, objects: int, width: int
) -> None:
    built = build_network(
        "rendering", network, "none", canvas_size=canvas_size, objects=objects, width=width, kernel_size=kernel_size
    )
    assert parameter_count(built) == growing_count(canvas_size, width, kernel_size, 2 * objects)


def test_the_papers_baseline_has_six_layers() -> None:
    built = build_network("classification", "deconv", "none", width=2)
    layers = [layer for layer in built.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in layers] == [128, 128, 128, 64, 64, 1]


@pytest.mark.parametrize("width", [1, 2])
def test_size_of_the_networks_of_rendering_and_regression(width: int) -> None:
    paint = chain_count([1, 8 * width, 8 * width, 16 * width, 16 * width, 1], 3)
    assert parameter_count(build_network("rendering", "paper", "xy", width=width)) == 7553 + paint
    c = 16 * width
    dense = chain_count([1, c, c, c, c], 3) + (c * 8 * 8 + 1) * 64 + (64 + 1) * 2
    assert parameter_count(build_network("regression", "dense", "none", width=width)) == dense
    kernels = [5, 1, 3, 3, 3, 3, 1, 3, 3]
    channels = [1, *[c] * 8, 2]
    strided = sum(i * o * k**2 + o for k, (i, o) in zip(kernels, itertools.pairwise(channels), strict=True))
    assert parameter_count(build_network("regression", "strided", "none", width=width)) == strided + 2 * 2 * c


@pytest.mark.parametrize(
    ("task", "kernel_size"), [("regression", 3), *itertools.product(["classification", "rendering"], [2, 3, 4])]
)
@pytest.mark.parametrize("canvas_size", [16, 64])
def test_budget_takes_as_many_channels_as_fit(task: TaskName, kernel_size: int, canvas_size: int) -> None:
    budget = parameter_count(build_network(task, "paper", "xy", canvas_size=canvas_size))
    kernel = {} if task == "regression" else {"kernel_size": kernel_size}
    built = build_network(task, "budget", "none", canvas_size=canvas_size, **kernel)
    channels = [layer for layer in built.modules() if isinstance(layer, nn.BatchNorm2d)][-1].num_features
    if task == "regression":
        more: nn.Module = StridedRegressor(channels + 1)
    else:
        more = GrowingNet(canvas_size, 2, channels + 1, kernel_size)
    assert parameter_count(built) <= budget < parameter_count(more)


# ------------------------------------------------------------------ the paper's network, independently


def naive_logits(weights: dict[str, Tensor], centers: Tensor, size: int, coords: Coords, *, scale: bool) -> Tensor:
    """Repeats (x, y) over the canvas, appends coordinate channels, applies 1x1 convolutions."""
    grid = coord_grid((size, size), r=coords == "xyr", dtype=torch.float64)
    # A pixel's own coordinates, looked up: x in the first row, y in the first column.
    numbers = torch.stack([grid[0, 0][centers[:, 0]], grid[1, :, 0][centers[:, 1]]], 1) if scale else centers.double()
    hidden = numbers[:, :, None, None].repeat(1, 1, size, size)
    weight = weights["first.weight"]
    if coords != "none":
        hidden = torch.cat([hidden, grid.repeat(len(centers), 1, 1, 1)], 1)
        weight = torch.cat([weight, weights["first.coord_weight"]], 1)
    hidden = F.conv2d(hidden, weight, weights["first.bias"])
    for layer in (1, 3, 5, 7):
        hidden = F.conv2d(hidden.relu(), weights[f"rest.{layer}.weight"], weights[f"rest.{layer}.bias"])
    return hidden[:, 0]


@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("size", [8, 13])
def test_the_papers_network_equals_an_independent_one(coords: Coords, scale: bool, size: int) -> None:
    torch.manual_seed(0)
    network = build_network("classification", "paper", coords, canvas_size=size, scale_inputs=scale)
    randomized(network.double())
    centers = torch.randint(size, (5, 2))
    probe = torch.randn(5, size, size, dtype=torch.float64)
    logits = network(centers.double())
    weights = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    expected = naive_logits(weights, centers, size, coords, scale=scale)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    (logits * probe).sum().backward()
    (expected * probe).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
def test_logits_of_chosen_pixels_are_those_of_the_canvas(coords: Coords) -> None:
    network = PixelClassifier(9, coords).double()
    randomized(network)
    centers, pixels = torch.randint(9, (4, 2)).double(), torch.randint(81, (4, 200))
    weights = torch.randn(4, 200, dtype=torch.float64)
    gradients = []
    for logits in (network.at(centers, pixels), network(centers).flatten(1).gather(1, pixels)):
        gradients.append((logits.detach(), *torch.autograd.grad((logits * weights).sum(), list(network.parameters()))))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_rendering_sees_nothing_but_the_probabilities_of_pixels() -> None:
    network = build_network("rendering", "paper", "xy", canvas_size=10)
    assert isinstance(network, PixelRenderer)
    randomized(network.double())
    centers = inputs_of("rendering", 10).double()
    hidden = network.classifier(centers).flatten(1).softmax(1).view(3, 1, 10, 10)
    for layer in (0, 2, 4, 6, 8):
        convolution = network.paint[layer]
        assert isinstance(convolution, nn.Conv2d)
        hidden = F.conv2d(hidden if layer == 0 else hidden.relu(), convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(network(centers), hidden[:, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
def test_regression_equals_an_independent_one(coords: Coords) -> None:
    network = build_network("regression", "paper", coords, canvas_size=9)
    randomized(network.double())
    images = inputs_of("regression", 9).double()
    weights = dict(network.named_parameters())
    grid = coord_grid((9, 9), r=coords == "xyr", dtype=torch.float64)
    hidden: Tensor = images
    first: Tensor = weights["layers.0.weight"]
    if coords != "none":
        hidden = torch.cat([hidden, grid.expand(3, -1, -1, -1)], 1)
        first = torch.cat([first, weights["layers.0.coord_weight"]], 1)
    hidden = F.conv2d(hidden, first, weights["layers.0.bias"])
    for layer in (1, 2, 3, 4):
        hidden = F.conv2d(
            hidden, weights[f"layers.{layer}.weight"], weights[f"layers.{layer}.bias"], padding=int(layer > 2)
        )
    torch.testing.assert_close(network(images), hidden.amax((2, 3)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
def test_collapsed_regression_is_the_same_inside_the_border(coords: Coords) -> None:
    network = PositionNet(coords).double()
    randomized(network)
    images = torch.zeros(50, 1, 9, 9, dtype=torch.float64)
    images[:49, 0, 1:-1, 1:-1] = torch.eye(49, dtype=torch.float64).view(49, 7, 7)  # a mark at each pixel
    images[49, 0, 1:-1, 1:-1] = torch.randn(7, 7)
    outputs = network(images)
    assert outputs.unique().numel() > 10, "a test of nothing else"
    collapsed = network.forward_collapsed(images)
    torch.testing.assert_close(collapsed, outputs, rtol=1e-9, atol=1e-9)
    probe = torch.randn(50, 2, dtype=torch.float64)
    parameters = list(network.parameters())
    for one, other in zip(
        torch.autograd.grad((collapsed * probe).sum(), parameters),
        torch.autograd.grad((outputs * probe).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------ sizes


@EVERY_NETWORK
@pytest.mark.parametrize("coords", ["none", "xy", "xyr"])
@pytest.mark.parametrize("size", [8, 16, 20])
def test_outputs_have_the_canvas_size(task: TaskName, network: str, coords: Coords, size: int) -> None:
    objects = 2 if task == "rendering" else 1
    two = {"objects": 2} if task == "rendering" else {}
    built = build_network(task, network, coords, canvas_size=size, **two)
    outputs = built(inputs_of(task, size, objects=objects))
    assert outputs.shape == ((3, 2) if task == "regression" else (3, size, size))
    assert outputs.isfinite().all()
    convolutions = [layer for layer in built.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    with_coords = [layer for layer in convolutions if isinstance(layer, CoordConv2d | CoordConvTranspose2d)]
    expected = 0 if coords == "none" else 1 if network == "paper" else len(convolutions)
    assert len(with_coords) == expected
    assert all(layer.coords == coords for layer in with_coords)


@EVERY_NETWORK
@pytest.mark.parametrize("coords", ["none", "xy"])
def test_every_parameter_gets_a_gradient(task: TaskName, network: str, coords: Coords) -> None:
    """Also what training on several devices asks for."""
    built = build_network(task, network, coords, canvas_size=8)
    built(inputs_of(task, 8)).square().sum().backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []


@KERNELS
def test_every_step_doubles_the_size(network: str, kernel_size: int) -> None:
    built = build_network("classification", network, "none", canvas_size=32, kernel_size=kernel_size)
    sizes: list[tuple[int, ...]] = []
    for layer in built.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *seen: sizes.append(tuple(seen[2].shape[-2:])))
    built(inputs_of("classification", 32))
    assert sizes == [(2, 2), (4, 4), (8, 8), (16, 16), (32, 32)]


@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_a_step_draws_around_twice_the_position(kernel_size: int) -> None:
    layer = next(m for m in GrowingNet(8, kernel_size=kernel_size).modules() if isinstance(m, nn.ConvTranspose2d))
    image = torch.zeros(1, 2, 4, 4)
    image[:, :, 2, 2] = 1
    nn.init.ones_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    for axis in (0, 1):
        drawn = layer(image)[0, 0].sum(axis).nonzero().flatten().tolist()
        assert len(drawn) == kernel_size
        assert {4, 5} <= set(drawn)


# ------------------------------------------------------------------ weights to start from


@EVERY_NETWORK
def test_same_seed_gives_the_same_weights(task: TaskName, network: str) -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built = build_network(task, network, "xy", canvas_size=8)
        drawn.append(torch.cat([parameter.detach().flatten() for parameter in built.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@EVERY_NETWORK
def test_gains_scale_the_weights_that_they_are_for(task: TaskName, network: str) -> None:
    states = []
    for gain, coord_gain in ((1.0, 1.0), (0.5, 0.25)):
        torch.manual_seed(0)
        gains = {"coord_gain": coord_gain} if task == "regression" else {"gain": gain, "coord_gain": coord_gain}
        built = build_network(task, network, "xyr", canvas_size=8, **gains)
        states.append(dict(built.named_parameters()))
    of_classifier = network == "paper" and task != "regression"
    for name, parameter in states[0].items():
        factor = 1.0
        if of_classifier and parameter.dim() > 1 and "paint" not in name:
            factor *= 0.5
        if name.endswith("coord_weight"):
            factor *= 0.25
        torch.testing.assert_close(states[1][name], factor * parameter)

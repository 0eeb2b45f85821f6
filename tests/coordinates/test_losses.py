"""Cross-entropy over a whole canvas against a loop, and its estimate against the whole."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coordconv_apps.coordinates import losses
from coordconv_apps.coordinates.losses import (
    SampledPixels,
    full_cross_entropy,
    sample_pixels,
    sampled_cross_entropy,
    sampled_rendering_loss,
)
from coordconv_apps.coordinates.models.pixel_networks import HALO, PixelClassifier, PixelRenderer
from coordconv_apps.coordinates.not_so_clevr import all_centers, render
from coordconv_apps.coordinates.tasks import CoordinateRendering
from coordconv_apps.nn.init import he_normal_

SIZE = 8


class GivenLogits(PixelClassifier):
    """Logits that are given, the same for every sample; remembers the pixels that it was asked for."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(len(logits), "none")
        self.logits = logits
        self.pixels = torch.zeros(0)

    def at(self, centers: Tensor, pixels: Tensor) -> Tensor:
        self.pixels = pixels
        return self.logits.flatten()[pixels]


class DoublePrecision(PixelClassifier):
    """The network in double precision: the loss gives it positions in single precision."""

    def _sample_part(self, centers: Tensor) -> Tensor:
        return super()._sample_part(centers.double())


def some_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifier(canvas_size: int = SIZE) -> PixelClassifier:
    network = DoublePrecision(canvas_size, "xyr").double()
    torch.manual_seed(0)
    he_normal_(network)
    return network


def test_full_loss_equals_a_loop() -> None:
    logits = some_logits(5, 6, 6)
    centers = torch.tensor([[[0, 0]], [[5, 0]], [[0, 5]], [[2, 4]], [[4, 2]]])
    found = []
    for sample in range(5):
        ((x, y),) = centers[sample].tolist()
        pixels = np.exp(logits[sample].numpy())
        found.append(-math.log(pixels[y, x] / pixels.sum()))
    assert full_cross_entropy(logits, centers).item() == pytest.approx(sum(found) / 5, rel=1e-12)


@pytest.mark.parametrize("near", [SIZE - 1, SIZE, 3 * SIZE])
@pytest.mark.parametrize("others_weight", [0.0, 0.5, 1.0])
def test_a_window_over_the_whole_canvas_gives_the_full_loss(near: int, others_weight: float) -> None:
    network, centers = classifier(), all_centers(SIZE, 1).unsqueeze(1)
    sampled = sampled_cross_entropy(network, centers, near, 5, others_weight)
    full = full_cross_entropy(network(centers.flatten(1)), centers)
    torch.testing.assert_close(sampled, full, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(sampled, list(network.parameters())),
        torch.autograd.grad(full, list(network.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("near", [0, 1, 2, 3])
@pytest.mark.parametrize("others_weight", [0.0, 0.3, 1.0])
def test_sampled_loss_equals_a_loop_over_its_pixels(near: int, others_weight: float) -> None:
    """For every true pixel, those in corners and at borders too."""
    torch.manual_seed(0)
    others, side = 11, 2 * near + 1
    network, centers = GivenLogits(some_logits(SIZE, SIZE)), all_centers(SIZE, 1).unsqueeze(1)
    loss = sampled_cross_entropy(network, centers, near, others, others_weight)
    assert network.pixels.shape == (SIZE**2, side**2 + others)
    logits = network.logits.flatten().tolist()
    expected, left_out = [], 0
    for center, pixels in zip(centers.tolist(), network.pixels.tolist(), strict=True):
        ((x, y),) = center
        left, top = (min(max(axis - near, 0), SIZE - side) for axis in (x, y))
        window = {row * SIZE + column for row in range(top, top + side) for column in range(left, left + side)}
        assert set(pixels[: side**2]) == window
        assert y * SIZE + x in window
        total = sum(math.exp(logits[pixel]) for pixel in window)
        for pixel in pixels[side**2 :]:
            assert 0 <= pixel < SIZE**2
            if pixel in window:
                left_out += 1
            else:
                total += math.exp(logits[pixel]) * (SIZE**2 / others) ** others_weight
        expected.append(math.log(total) - logits[y * SIZE + x])
    assert left_out > 0, "a test of nothing else"
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-6)


@pytest.mark.parametrize("others", [16, 64])
@pytest.mark.parametrize("center", [(0, 7), (3, 4)])
def test_the_sum_below_the_softmax_is_unbiased(others: int, center: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network, centers = GivenLogits(some_logits(SIZE, SIZE)), torch.tensor([[center]])
    true = network.logits[center[1], center[0]].item()
    count = 3000
    found = [sampled_cross_entropy(network, centers, 1, others).item() for _ in range(count)]
    sums = np.exp(np.array(found) + true)  # the loss is the logarithm of the sum, less the true pixel's logit
    assert sums.std() > 0.1, "a test of nothing else"
    full = network.logits.exp().sum().item()
    error = sums.std() / math.sqrt(count)
    assert sums.mean() == pytest.approx(full, abs=4 * error)
    assert 4 * error < 0.03 * full, "close enough to tell a weight of all pixels from that of those outside"


def test_every_pixel_is_drawn() -> None:
    torch.manual_seed(0)
    network = GivenLogits(some_logits(SIZE, SIZE))
    sampled_cross_entropy(network, torch.tensor([[[1, 1]]]), 0, 20_000)
    counts = torch.bincount(network.pixels[0, 1:], minlength=SIZE**2)
    expected = 20_000 / SIZE**2
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_sampled_loss_trains_every_parameter() -> None:
    torch.manual_seed(0)
    network = classifier()
    centers = torch.tensor([[[0, 0]], [[7, 7]], [[2, 5]]])
    sampled_cross_entropy(network, centers, 1, 16).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # What is added to all logits alike changes no probability.
        assert (parameter.grad.abs().max() > 1e-9) == (name != "rest.7.bias"), name


# ------------------------------------------------------------------ rendering


def renderer(canvas_size: int) -> PixelRenderer:
    network = PixelRenderer(classifier(canvas_size)).double()
    torch.manual_seed(1)
    he_normal_(network.paint)
    with torch.no_grad():
        for parameter in network.paint.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def test_rendering_of_the_whole_canvas_is_the_full_loss() -> None:
    network, centers = renderer(SIZE), all_centers(SIZE, 3).unsqueeze(1)
    sampled = sampled_rendering_loss(network, centers, 3, SIZE, 5)
    full = F.binary_cross_entropy_with_logits(network(centers.flatten(1)), render(centers, SIZE, 3).double())
    assert sampled.item() == pytest.approx(full.item(), rel=1e-6)
    parameters = list(network.parameters())
    for one, other in zip(torch.autograd.grad(sampled, parameters), torch.autograd.grad(full, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("near", [1, 2])
def test_rendering_around_the_square_is_that_of_the_canvas(near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact sum below the softmax, nothing but the pixels that are compared tells the losses apart."""

    def exact(network: PixelClassifier, centers: Tensor, *arguments: float) -> SampledPixels:
        log_sum = network(centers.flatten(1)).flatten(1).logsumexp(1)
        return sample_pixels(network, centers, *arguments)._replace(log_sum=log_sum)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(losses, "sample_pixels", exact)
    size, halo, square = 18, 5, 3
    network = renderer(size)
    assert halo == HALO
    centers = torch.tensor([[[1, 1]], [[16, 1]], [[9, 8]], [[4, 16]], [[6, 7]], [[12, 11]]])
    painted, true = network(centers.flatten(1)), render(centers, size, square).double()
    values = []
    for sample, ((x, y),) in enumerate(centers.tolist()):
        side = 2 * (near + halo) + 1
        left, top = (min(max(axis - near - halo, 0), size - side) for axis in (x, y))
        # Pixels that the canvas beyond the square of sampled ones could not reach.
        columns, rows = (
            [
                i
                for i in range(at, at + side)
                if (at == 0 or i >= at + halo) and (at + side == size or i < at + side - halo)
            ]
            for at in (left, top)
        )
        assert {x - 1, x, x + 1} <= set(columns)
        assert {y - 1, y, y + 1} <= set(rows)
        part = (sample, torch.tensor(rows)[:, None], torch.tensor(columns))
        values.append(F.binary_cross_entropy_with_logits(painted[part], true[part], reduction="none").flatten())
    expected = torch.cat(values)
    assert len(expected) < painted.numel() / 2, "a test of nothing else"
    loss = sampled_rendering_loss(network, centers, square, near, 7)
    assert loss.item() == pytest.approx(expected.mean().item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_the_softmax_inside_is_trained_by_its_weight(loss: Literal["full", "sampled"]) -> None:
    torch.manual_seed(0)
    centers = all_centers(SIZE, 3)[:, None][::7]
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for weight in (0.0, 0.5):
        task = CoordinateRendering(
            "xy", canvas_size=SIZE, square_size=3, loss=loss, near=6 + SIZE, center_weight=weight
        )
        task.load_state_dict(found[0][1] if found else task.state_dict())
        torch.manual_seed(1)
        found.append((task.training_loss(centers), task.state_dict()))
    network = task.network
    assert isinstance(network, PixelRenderer)
    of_centers = full_cross_entropy(network.classifier(centers.flatten(1).float()), centers)
    torch.testing.assert_close(found[1][0] - found[0][0], 0.5 * of_centers, rtol=1e-4, atol=1e-5)


def test_full_loss_is_the_mean_over_objects() -> None:
    torch.manual_seed(0)
    logits, centers = torch.randn(4, SIZE, SIZE), torch.randint(SIZE, (4, 2, 2))
    both = full_cross_entropy(logits, centers)
    each = [full_cross_entropy(logits, centers[:, [k]]) for k in (0, 1)]
    torch.testing.assert_close(both, torch.stack(each).mean())

"""From latents to images: the average, latents, samples, and what is refused."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.func import functional_call

from generative.tasks import GAN, VAE
from generative.tasks.base import PREDICTION_SEED
from tests.generative.tiny import METHODS, data, default_dtype, fitted, task, trainer
from tests.helpers.trainers import OWN_TRAINER

if TYPE_CHECKING:
    from pathlib import Path

    from generative.tasks import GenerativeTask

pytestmark = OWN_TRAINER

# ------------------------------------------------------------------ the average


def by_hand(states: list[Tensor], decay: float) -> Tensor:
    """The average after each state but the first, which it starts from."""
    average = states[0].double()
    for number, state in enumerate(states[1:], 1):
        keep = min(decay, (1 + number) / (10 + number))
        average = keep * average + (1 - keep) * state.double()
    return average


@pytest.mark.parametrize(("method", "decay"), [(GAN, 0.3), (VAE, 0.999)])
def test_the_average_follows_its_formula(tmp_path: Path, method: type[GenerativeTask], decay: float) -> None:
    seed_everything(0)
    one = task(method=method, average=decay, network="conv", lr=0.01)
    watch = fitted(tmp_path, one, max_epochs=2)
    names = [name for name in watch.states[0] if name.startswith(("generator", "encoder"))]
    for name in names:
        average = watch.states[-1][f"averaged.module.{name}"]
        states = [state[name] for state in watch.states]
        if average.is_floating_point():
            torch.testing.assert_close(average.double(), by_hand(states, decay), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(average, states[-1]), "a count is not averaged"
    assert {name.split(".")[0] for name in names} == ({"generator"} if method is GAN else {"generator", "encoder"})
    averaged = {name: value for name, value in watch.states[-1].items() if name.startswith("averaged.module.gen")}
    latents = one.draw_latents(5, 3)
    state = {name.removeprefix("averaged.module.generator."): value for name, value in averaged.items()}
    expected = functional_call(one.generator.eval(), state, latents).tanh()
    torch.testing.assert_close(one.sample(latents), expected, rtol=1e-4, atol=1e-5)
    assert (one.sample(latents) - one.generator(latents).tanh()).abs().max() > 1e-4, "not those of the last weights"
    module = one.export_module()
    torch.testing.assert_close(module(latents), expected, rtol=1e-4, atol=1e-5)
    assert {name.partition(".")[0] for name in module.state_dict()} == {"generator"}  # in files of weights


def test_images_are_those_of_the_last_weights_without_an_average(tmp_path: Path) -> None:
    one = task(network="conv", lr=0.01)
    fitted(tmp_path, one)
    latents = one.draw_latents(5, 3)
    assert one.averaged is None
    torch.testing.assert_close(one.sample(latents), one.generator.eval()(latents).tanh())


def test_images_follow_the_average_as_it_changes() -> None:
    """The layers keep what coordinates add, in evaluation mode, for as long as their weights do not change."""
    seed_everything(0)
    one = task(average=0.9).eval()
    latents = one.draw_latents(3, 0)
    one._update_average()
    before = one.sample(latents)
    with torch.no_grad():
        for parameter in one.generator.parameters():
            parameter.mul_(2)
    one._update_average()
    after = one.sample(latents)
    assert (after - before).abs().max() > 1e-3
    assert one.averaged is not None
    fresh = copy.deepcopy(one.averaged.module["generator"]).train()
    torch.testing.assert_close(after, fresh(latents).tanh(), rtol=1e-3, atol=1e-4)


def test_the_average_is_not_trained_nor_counted() -> None:
    assert task(average=0.9).parameter_count() == task().parameter_count()
    assert task().parameter_count() == sum(p.numel() for p in task().parameters())


# ------------------------------------------------------------------ latents and samples


def test_latents_of_a_gan_are_uniform_and_those_of_a_vae_normal() -> None:
    uniform, normal = (task(method=method).draw_latents(5000, 0) for method in (GAN, VAE))
    assert uniform.shape == normal.shape == (5000, 4)
    assert uniform.abs().max() <= 1
    share = torch.histc(uniform, 10, -1, 1) / uniform.numel()
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0.0, atol=0.01)
    torch.testing.assert_close(normal.mean(0), torch.zeros(4), rtol=0.0, atol=0.07)
    torch.testing.assert_close(normal.std(0), torch.ones(4), rtol=0.05, atol=0.0)
    assert (normal.abs() > 1.96).float().mean().item() == pytest.approx(0.05, abs=0.01)


@METHODS
def test_latents_depend_on_their_seed_alone(method: type[GenerativeTask]) -> None:
    one = task(method=method)
    many = one.draw_latents(700, 5)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    for number in (0, 1, 256, 257, 512, 699):
        assert torch.equal(one.draw_latents(number, 5), many[:number])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.isclose(many, one.draw_latents(700, 6)).any(1).all()
    assert len(many.unique(dim=0)) == 700, "no block is like another"


@pytest.mark.parametrize(("method", "average"), [(GAN, 0.0), (VAE, 0.9)])
def test_sampling_changes_nothing(method: type[GenerativeTask], average: float) -> None:
    one = task(method=method, network="conv", average=average).train()
    next(layer for layer in one.generator.modules() if isinstance(layer, nn.BatchNorm2d)).eval()
    modes = {name: module.training for name, module in one.named_modules()}
    state = {name: value.clone() for name, value in one.state_dict().items()}
    random = torch.get_rng_state()
    images = one.sample(one.draw_latents(3, 0))
    assert images.shape == (3, 3, 16, 16)
    assert images.abs().max() <= 1
    assert not images.requires_grad
    if method is VAE:
        one.reconstruct(images)
    assert {name: module.training for name, module in one.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in one.state_dict().items():
        assert torch.equal(value, state[name]), name
    # In evaluation mode, an image does not depend on the others.
    torch.testing.assert_close(one.sample(one.draw_latents(1, 0)), images[:1])


def test_predictions_are_those_of_numbered_latents(tmp_path: Path) -> None:
    one = task()
    predictions: Any = trainer(tmp_path).predict(one, data(num_predict=10, eval_batch_size=4))
    assert [len(prediction.indices) for prediction in predictions] == [4, 4, 2]
    latents = one.draw_latents(10, PREDICTION_SEED)
    assert torch.equal(torch.cat([prediction.latents for prediction in predictions]), latents)
    images = torch.cat([prediction.images for prediction in predictions])
    torch.testing.assert_close(images, one.generator(latents).tanh())
    assert torch.equal(one.predict(latents.numpy()), one.predict(10))  # an array, as in samples.npz


def test_a_reconstruction_is_that_of_the_posteriors_mean() -> None:
    one = task(method=VAE).eval()
    images = data().example_images(3)
    expected = one.generator(one.encoder(images).mean).tanh()
    torch.testing.assert_close(one.reconstruct(images), expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_networks_of_another_precision_take_float32(kind: torch.dtype) -> None:
    one = task(method=VAE).eval()
    images = data().example_images(3)
    expected = one.reconstruct(images)
    found = one.to(kind).reconstruct(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5 if kind == torch.float64 else 0.1)


@METHODS
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_numbered_latents_do_not_depend_on_the_precision(method: type[GenerativeTask], kind: torch.dtype) -> None:
    one = task(method=method)
    expected = one.draw_latents(3, 1)
    with default_dtype(kind):
        assert torch.equal(one.draw_latents(3, 1), expected)


def test_example_inputs_are_for_the_exported_network() -> None:
    one = task(method=VAE).eval()
    (latents,) = one.example_inputs()
    assert latents.shape == (2, 4)
    torch.testing.assert_close(one.export_module()(latents), one.sample(latents))


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("shape", [(2, 5), (4,), (2, 4, 1, 1)])
def test_latents_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^latents of shape \(.*\): must be \(B, 4\)$"):
        task().sample(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 32, 32)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^images of shape \(.*\): must be \(B, 3, 16, 16\)$"):
        task(method=VAE).reconstruct(torch.zeros(shape))

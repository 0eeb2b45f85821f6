"""The task: its steps beside loops written by hand, its average, its latents, its figures, and what it refuses."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.transforms.v2.functional import to_pil_image

from generative.data import GenerativeData, ImageBatch
from generative.dcgan import ConvGenerator, CoordConvGenerator
from generative.losses import reconstruction_loss
from generative.metrics import TwoShapeMetrics
from generative.sampling import PREDICTION_SEED
from generative.task import EVALUATION_SEED, VALIDATED, GenerativeTask
from tests.generative.test_pictures import RADIUS, SIZE, MadeUp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from generative.sampling import Method

pytestmark = [
    # Of a tiny run with Lightning's own trainer, none of which says anything about the task.
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*`isinstance.treespec, LeafSpec.` is deprecated"),
]

EPSILON = 0.1

METHODS = pytest.mark.parametrize("method", ["gan", "vae"])


def task(**arguments: Any) -> GenerativeTask:  # noqa: ANN401  # handed on as they are
    tiny: dict[str, Any] = {"coords": "xy", "image_size": 16, "latent_size": 4, "width": 2, "discriminator_width": 2}
    return GenerativeTask(**(tiny | arguments))


def data(**arguments: Any) -> GenerativeData:  # noqa: ANN401  # handed on as they are
    tiny = {"image_size": 16, "radius": 2, "num_train": 12, "num_val": 40, "num_test": 40, "batch_size": 4}
    return GenerativeData(**(tiny | arguments))


def trainer(folder: Path, **arguments: Any) -> Trainer:  # noqa: ANN401  # handed on as they are
    settings: dict[str, Any] = {"max_epochs": 1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **(settings | arguments),
    )


class Caching(MixedPrecision):
    """Rounds each weight once in a training step, as other versions of Lightning do."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)


MIXED: dict[str, dict[str, Any]] = {"cached": {"plugins": [Caching()]}, "uncached": {"precision": "bf16-mixed"}}


class Watch(Callback):
    """Keeps, of every batch: its images, the random numbers before it, and after it rates, weights and buffers."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.random: list[Tensor] = []
        self.rates: list[list[float]] = []
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: ImageBatch, batch_idx: int) -> None:  # noqa: ANN401  # Lightning's
        self.images.append(batch.images.clone())
        self.random.append(torch.get_rng_state())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *unused: Any) -> None:  # noqa: ANN401  # Lightning's
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def fitted(folder: Path, one: GenerativeTask, there: GenerativeData | None = None, **arguments: Any) -> Watch:  # noqa: ANN401
    watch = Watch()
    trainer(folder, callbacks=[watch], **arguments).fit(one, data() if there is None else there)
    return watch


def assert_same_parameters(found: nn.Module, expected: nn.Module) -> None:
    for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=2e-5), name


# ------------------------------------------------------------------ steps, beside loops written by hand


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Adam take no notice of gradients that are rounding errors, such as those of a bias before batch norm."""
    monkeypatch.setattr(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=EPSILON))


def gan_by_hand(one: GenerativeTask, watch: Watch, arguments: dict[str, Any]) -> dict[str, nn.Module]:
    generator, discriminator, entropy = one.generator, one.discriminator, F.binary_cross_entropy_with_logits
    steps, weight = arguments.get("generator_steps", 2), arguments.get("feature_matching", 0.0)
    penalty, every = arguments.get("gradient_penalty", 0.0), arguments.get("penalty_every", 1)
    optimizers = [
        torch.optim.Adam(network.parameters(), lr, (0.5, 0.75), fused=True)
        for network, lr in ((generator, 0.2), (discriminator, 0.1))
    ]
    for number, (images, random) in enumerate(zip(watch.images, watch.random, strict=True)):
        torch.set_rng_state(random)
        images = images.contiguous(memory_format=torch.channels_last)
        ones, zeros = torch.ones(len(images)), torch.zeros(len(images))
        generated = generator(torch.rand(len(images), 4) * 2 - 1).tanh().detach()
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
            logits, features = discriminator(generator(torch.rand(len(images), 4) * 2 - 1).tanh())
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
    ],
    ids=["paper", "penalty", "features"],
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
    one = task(method="vae", lr=0.05, beta1=0.5, beta2=0.75, **arguments)
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


@pytest.mark.parametrize("mixed", [None, *MIXED])
@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_changes_one_network_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    mixed: str | None,
) -> None:
    one = task(generator_steps=steps, feature_matching=1.0, network="conv")
    networks = {"generator": one.generator, "discriminator": one.discriminator}
    changed: list[set[str]] = []
    update = one._update

    def watched(*arguments: Any) -> None:  # noqa: ANN401  # handed on as they are
        before = {name: copy.deepcopy(list(network.parameters())) for name, network in networks.items()}
        update(*arguments)
        changed.append(
            {
                name
                for name, network in networks.items()
                if any(not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True))
            }
        )

    monkeypatch.setattr(one, "_update", watched)
    run = trainer(tmp_path, max_epochs=2, **({} if mixed is None else MIXED[mixed]))
    run.fit(one, data())
    assert changed == 6 * [{"discriminator"}, *steps * [{"generator"}]]
    assert run.global_step == 6 * (1 + steps)
    counts = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in run.optimizers]
    assert counts == [{6}, {6 * steps}], "of the discriminator first"
    assert all(parameter.requires_grad for network in networks.values() for parameter in network.parameters())


def test_generators_steps_cost_no_gradients_of_the_discriminator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task()
    seen: list[tuple[bool, bool]] = []
    update = one._update

    def watched(optimizer: Any, loss: Tensor) -> None:  # noqa: ANN401  # handed on as it is
        seen.append(
            tuple(all(p.requires_grad for p in part.parameters()) for part in (one.generator, one.discriminator))  # type: ignore[arg-type]
        )
        update(optimizer, loss)

    monkeypatch.setattr(one, "_update", watched)
    trainer(tmp_path, limit_train_batches=1).fit(one, data())
    assert seen == [(True, True), (True, False), (True, False)]


@METHODS
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train_and_validate(tmp_path: Path, method: Method, precision: Any) -> None:  # noqa: ANN401
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


@METHODS
def test_same_seed_gives_the_same_weights(tmp_path: Path, method: Method) -> None:
    states = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        states.append(fitted(tmp_path, task(method=method)).states[-1])
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name
    assert any(not torch.equal(weight, states[2][name]) for name, weight in states[0].items())


# ------------------------------------------------------------------ rates and lengths


@METHODS
def test_rates_follow_their_schedule_batch_by_batch(tmp_path: Path, method: Method) -> None:
    settings: dict[str, Any] = {"schedule": "step", "lr_milestones": [0.5], "lr_gamma": 0.25, "warmup": 0.5}
    one = task(method=method, lr=0.5, discriminator_lr=0.125, **settings)
    watch = fitted(tmp_path, one, max_epochs=2)
    # Of the batch after: warm-up over 3 of 6 batches; from then on a quarter.
    factors = [2 / 3, 1.0, 0.25, 0.25, 0.25, 0.25]
    own = [0.125, 0.5] if method == "gan" else [0.5]
    for rates, factor in zip(watch.rates, factors, strict=True):
        assert rates == pytest.approx([rate * factor for rate in own])


@pytest.mark.parametrize(("max_steps", "batches"), [(6, 2), (5, 2), (7, 3), (1, 1)])
def test_max_steps_counts_the_steps_of_both_networks(tmp_path: Path, max_steps: int, batches: int) -> None:
    one = task(lr=1.0, schedule="cosine")
    watch = fitted(tmp_path, one, max_steps=max_steps, max_epochs=-1)
    assert len(watch.images) == batches
    assert watch.rates[-1] == pytest.approx([0.0, 0.0]), "the schedule ends with the training"
    if batches > 1:
        assert watch.rates[-2][1] > 0


def test_max_steps_of_a_vae_are_its_batches(tmp_path: Path) -> None:
    watch = fitted(tmp_path, task(method="vae", schedule="cosine"), max_steps=4, max_epochs=-1)
    assert len(watch.images) == 4
    assert watch.rates[-1] == pytest.approx([0.0])
    assert watch.rates[1] == pytest.approx([0.5 * 5e-4])


@pytest.mark.parametrize(("coords", "is_baseline"), [("none", True), ("xy", False), ("xyr", False)])
def test_the_baseline_is_for_coords_none_alone(coords: Any, is_baseline: bool) -> None:  # noqa: ANN401  # parametrised
    one = task(coords=coords, baseline_width=3, lr=0.1, baseline_lr=0.3)
    assert type(one.generator) is (ConvGenerator if is_baseline else CoordConvGenerator)
    assert one.lr == (0.3 if is_baseline else 0.1)
    if isinstance(one.generator, ConvGenerator):
        assert one.generator.first.out_features == 16 * 2 * 3
    assert task(coords=coords, lr=0.1).lr == 0.1
    same = task(coords=coords, baseline=None, baseline_lr=0.3, baseline_width=3, lr=0.1)
    assert type(same.generator) is CoordConvGenerator
    assert same.lr == 0.1
    assert same.generator.rest[-1].in_channels == 2


@pytest.mark.parametrize("coords", ["none", "xy"])
def test_the_discriminator_sees_coordinates_if_asked_to(coords: Any) -> None:  # noqa: ANN401  # parametrised
    for asked in (False, True):
        names = {name for name, _ in task(coords=coords, discriminator_coords=asked).discriminator.named_parameters()}
        assert ("features.0.coord_weight" in names) == (asked and coords == "xy")
    names = {name for name, _ in task(coords=coords, method="vae").encoder.named_parameters()}
    assert ("features.0.coord_weight" in names) == (coords == "xy")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides it from users
@pytest.mark.parametrize("arguments", [{}, {"gradient_penalty": 1.0, "norm": False}, {"method": "vae"}])
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


# ------------------------------------------------------------------ the average


def by_hand(states: list[Tensor], decay: float) -> Tensor:
    """The average after each state but the first, which it starts from."""
    average = states[0].double()
    for number, state in enumerate(states[1:], 1):
        keep = min(decay, (1 + number) / (10 + number))
        average = keep * average + (1 - keep) * state.double()
    return average


@METHODS
@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_follows_its_formula(tmp_path: Path, method: Method, decay: float) -> None:
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
    assert {name.split(".")[0] for name in names} == ({"generator"} if method == "gan" else {"generator", "encoder"})
    averaged = {name: value for name, value in watch.states[-1].items() if name.startswith("averaged.module.gen")}
    latents = one.draw_latents(5, 3)
    state = {name.removeprefix("averaged.module.generator."): value for name, value in averaged.items()}
    expected = functional_call(one.generator.eval(), state, latents).tanh()
    torch.testing.assert_close(one.sample(latents), expected, rtol=1e-4, atol=1e-5)
    assert (one.sample(latents) - one.generator(latents).tanh()).abs().max() > 1e-4, "not those of the last weights"
    torch.testing.assert_close(one.export_module()(latents), expected, rtol=1e-4, atol=1e-5)


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
    fresh = copy.deepcopy(one.averaged.module["generator"]).train()  # type: ignore[index]  # a ModuleDict
    torch.testing.assert_close(after, fresh(latents).tanh())


def test_the_average_is_not_trained_nor_counted() -> None:
    assert task(average=0.9).parameter_count() == task().parameter_count()
    assert task().parameter_count() == sum(p.numel() for p in task().parameters())


# ------------------------------------------------------------------ latents and samples


def test_latents_of_a_gan_are_uniform_and_those_of_a_vae_normal() -> None:
    uniform, normal = (task(method=method).draw_latents(5000, 0) for method in ("gan", "vae"))
    assert uniform.shape == normal.shape == (5000, 4)
    assert uniform.abs().max() <= 1
    share = torch.histc(uniform, 10, -1, 1) / uniform.numel()
    torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0.0, atol=0.01)
    torch.testing.assert_close(normal.mean(0), torch.zeros(4), rtol=0.0, atol=0.07)
    torch.testing.assert_close(normal.std(0), torch.ones(4), rtol=0.05, atol=0.0)
    assert (normal.abs() > 1.96).float().mean().item() == pytest.approx(0.05, abs=0.01)


@METHODS
def test_latents_depend_on_their_seed_alone(method: Method) -> None:
    one = task(method=method)
    many = one.draw_latents(700, 5)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    for number in (0, 1, 256, 257, 512, 699):
        assert torch.equal(one.draw_latents(number, 5), many[:number])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.isclose(many, one.draw_latents(700, 6)).any(1).all()
    assert len(many.unique(dim=0)) == 700, "no block is like another"


@METHODS
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_sampling_changes_nothing(method: Method, average: float) -> None:
    one = task(method=method, network="conv", average=average).train()
    next(layer for layer in one.generator.modules() if isinstance(layer, nn.BatchNorm2d)).eval()
    modes = {name: module.training for name, module in one.named_modules()}
    state = {name: value.clone() for name, value in one.state_dict().items()}
    random = torch.get_rng_state()
    images = one.sample(one.draw_latents(3, 0))
    assert images.shape == (3, 3, 16, 16)
    assert images.abs().max() <= 1
    assert not images.requires_grad
    if method == "vae":
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


def test_a_reconstruction_is_that_of_the_posteriors_mean() -> None:
    one = task(method="vae").eval()
    images = data().example_images(3)
    expected = one.generator(one.encoder(images).mean).tanh()
    torch.testing.assert_close(one.reconstruct(images), expected)


@METHODS
def test_example_inputs_are_for_the_exported_network(method: Method) -> None:
    one = task(method=method).eval()
    (latents,) = one.example_inputs()
    assert latents.shape == (2, 4)
    torch.testing.assert_close(one.export_module()(latents), one.sample(latents))


# ------------------------------------------------------------------ figures


@pytest.mark.parametrize("batch_size", [7, 64])
def test_figures_are_those_of_the_metrics(tmp_path: Path, batch_size: int) -> None:
    one = MadeUp()
    there = data(image_size=SIZE, radius=RADIUS, num_val=101, num_test=41, eval_batch_size=batch_size)
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(one, there, verbose=False)
    metrics = TwoShapeMetrics(SIZE, RADIUS)
    metrics.update(there.example_images(101, "val"), real=True)
    metrics.update(one.sample(one.draw_latents(51, EVALUATION_SEED)), real=False)
    expected = metrics.compute()
    found = {name: value.item() for name, value in run.callback_metrics.items()}
    assert found == pytest.approx(
        {f"val/{name}": expected[name].item() for name in VALIDATED if name in expected}, rel=1e-4
    )
    assert found["val/invalid"] < 0.1, "a test of nothing else"
    run.test(one, there, verbose=False)
    metrics.reset()
    metrics.update(there.example_images(41), real=True)
    metrics.update(one.sample(one.draw_latents(21, EVALUATION_SEED)), real=False)
    expected = metrics.compute()
    found = {name: value.item() for name, value in run.callback_metrics.items()}
    walks = {name for name in found if name.startswith("test/walk_")}
    assert found.keys() == {f"test/{name}" for name in expected} | walks
    for name, value in expected.items():
        assert found[f"test/{name}"] == pytest.approx(value.item(), rel=1e-4), name
    assert found["test/walk_distance"] > 0


def test_the_bound_of_a_vae_is_evaluated_with_the_whole_weight(tmp_path: Path) -> None:
    one = task(method="vae", kl_weight=3.0, kl_warmup=0.5).eval()
    there = data(num_val=43, eval_batch_size=10)
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(one, there, verbose=False)
    images = there.example_images(43, "val")
    mean, log_variance = one.encoder(images)
    reconstruction = reconstruction_loss("bernoulli", one.generator(mean), images).mean().item()
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean().item() / 2
    found = {name: run.callback_metrics[f"val/{name}"].item() for name in ("loss", "reconstruction", "divergence")}
    expected = {"reconstruction": reconstruction, "divergence": divergence}
    assert found == pytest.approx({**expected, "loss": reconstruction + 3 * divergence}, rel=1e-4)


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize("coords", ["none", "xy"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 12}, r"model\.image_size=12: must be a power of two of at least 8"),
        ({"image_size": 4}, r"model\.image_size=4: must be a power of two of at least 8"),
        *(
            ({name: 0}, rf"model\.{name}=0: must be an integer of at least 1")
            for name in ("latent_size", "width", "baseline_width", "discriminator_width", "generator_steps")
        ),
        ({"penalty_every": 0}, r"model\.penalty_every=0: must be an integer of at least 1"),
        *(
            ({name: value}, rf"model\.{name}={value}: must be above 0")
            for name in ("gain", "lr", "baseline_lr", "discriminator_lr")
            for value in (0.0, -1.0)
        ),
        *(
            ({name: value}, rf"model\.{name}={value}: must be in \[0, 1\)")
            for name in ("beta1", "beta2", "average", "kl_warmup")
            for value in (1.0, -0.5)
        ),
        *(
            ({name: -0.5}, rf"model\.{name}=-0\.5: must be at least 0")
            for name in ("feature_matching", "gradient_penalty", "kl_weight")
        ),
        ({"lr": float("nan")}, r"model\.lr=nan: must be above 0"),
        *(
            ({"method": "vae", name: value}, rf"model\.{name}={value}: is for model\.method=gan, and not for vae")
            for name, value in (("discriminator_coords", True), ("feature_matching", 1.0), ("gradient_penalty", 1.0))
        ),
        ({"kl_warmup": 0.5}, r"model\.kl_warmup=0\.5: is for model\.method=vae, and not for gan"),
        ({"warmup": 1.0}, r"warmup=1\.0: must be in \[0, 1\)"),
        ({"lr_milestones": [2.0]}, r"lr_milestones=\[2\.0\]"),
        ({"lr_gamma": 0.0}, r"lr_gamma=0\.0: must be in \(0, 1\]"),
    ],
)
def test_impossible_values_are_refused_in_one_line(coords: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        task(coords=coords, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3), (4,), (2, 4, 1, 1)])
def test_latents_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^latents of shape \(.*\): must be \(B, 4\)$"):
        task().sample(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 4, 16, 16), (2, 3, 16, 8), (2, 3, 32, 32), (3, 16, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^images of shape \(.*\): must be \(B, 3, 16, 16\)$"):
        task(method="vae").reconstruct(torch.zeros(shape))


def test_a_gan_cannot_reconstruct() -> None:
    with pytest.raises(ValueError, match=r"^reconstruct: is for model\.method=vae, and not for gan$"):
        task().reconstruct(torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("method", "source", "monitor", "mode"),
    [
        ("gan", "shapes", "val/coverage", "max"),
        ("vae", "shapes", "val/coverage", "max"),
        ("gan", "folder", "val/patch_distance", "min"),
        ("vae", "folder", "val/loss", "min"),
    ],
)
def test_what_is_best_depends_on_the_data(tmp_path: Path, method: Method, source: str, monitor: str, mode: str) -> None:
    there = data()
    if source == "folder":
        for number, image in enumerate(data().example_images(12)):
            to_pil_image(image / 2 + 0.5).save(tmp_path / f"{number}.png")
        there = data(source="folder", folder=str(tmp_path), num_train=None, num_val=5, num_test=4)
    one = task(method=method)
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(one, there, verbose=False)
    assert (one.monitor, one.monitor_mode) == (monitor, mode)
    assert run.callback_metrics[monitor].isfinite()
    assert (GenerativeTask.monitor, GenerativeTask.monitor_mode) == ("val/coverage", "max")


@METHODS
def test_data_must_have_the_size_of_the_network(tmp_path: Path, method: Method) -> None:
    with pytest.raises(ValueError, match=r"^model\.image_size=16: the data have 32 \(data\.image_size\)$"):
        trainer(tmp_path).fit(task(method=method), data(image_size=32))


def test_a_schedule_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an end of training"):
        trainer(tmp_path, max_epochs=-1).fit(task(schedule="cosine"), data())

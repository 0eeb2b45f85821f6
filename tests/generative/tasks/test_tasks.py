"""The task: rates, arms, figures, and what it refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import Callback
from torchvision.transforms.v2.functional import to_pil_image

from generative.latent_walks import STEPS, WALKS
from generative.losses import reconstruction_loss
from generative.metrics import TwoShapeMetrics
from generative.models import ConvGenerator, CoordConvGenerator
from generative.pictures import GenerativePictures
from generative.tasks import GAN, VAE, GenerativeTask
from generative.tasks.base import EVALUATION_SEED
from tests.generative.tiny import (
    METHODS,
    RADIUS,
    SIZE,
    MadeUpGAN,
    data,
    everywhere,
    fitted,
    task,
    trainer,
)
from tests.helpers.trainers import OWN_TRAINER

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer

    from generative.latent_walks import WalkMeasurements

pytestmark = OWN_TRAINER

# ------------------------------------------------------------------ rates and lengths


@METHODS
def test_rates_follow_their_schedule_batch_by_batch(tmp_path: Path, method: type[GenerativeTask]) -> None:
    settings: dict[str, Any] = {"schedule": "step", "lr_milestones": [0.5], "lr_gamma": 0.25, "warmup": 0.5}
    if method is GAN:
        settings["discriminator_lr"] = 0.001
    one = task(method=method, lr=0.004, **settings)  # a VAE diverges with 0.5
    watch = fitted(tmp_path, one, max_epochs=2)
    # Of the batch after: warm-up over 3 of 6 batches; from then on a quarter.
    factors = [2 / 3, 1.0, 0.25, 0.25, 0.25, 0.25]
    own = [0.001, 0.004] if method is GAN else [0.004]
    for rates, factor in zip(watch.rates, factors, strict=True):
        assert rates == pytest.approx([rate * factor for rate in own])


@pytest.mark.parametrize(("max_steps", "batches"), [(6, 2), (7, 3)])
def test_max_steps_counts_the_steps_of_both_networks(tmp_path: Path, max_steps: int, batches: int) -> None:
    one = task(lr=1.0, schedule="cosine")
    watch = fitted(tmp_path, one, max_steps=max_steps, max_epochs=-1)
    assert len(watch.images) == batches
    assert watch.rates[-1] == pytest.approx([0.0, 0.0]), "the schedule ends with the training"
    assert watch.rates[-2][1] > 0


def test_max_steps_of_a_vae_are_its_batches(tmp_path: Path) -> None:
    watch = fitted(tmp_path, task(method=VAE, schedule="cosine"), max_steps=4, max_epochs=-1)
    assert len(watch.images) == 4
    assert watch.rates[-1] == pytest.approx([0.0])
    assert watch.rates[1] == pytest.approx([0.5 * 5e-4])


@pytest.mark.parametrize(("coords", "is_baseline"), [("none", True), ("xy", False), ("xyr", False)])
def test_the_baseline_is_for_coords_none_alone(coords: Any, is_baseline: bool) -> None:  # noqa: ANN401  # parametrised
    one = task(coords=coords, baseline_width=3, lr=0.1, baseline_lr=0.3, before_tanh=True)
    assert one.before_tanh == (not is_baseline)
    assert type(one.generator) is (ConvGenerator if is_baseline else CoordConvGenerator)
    assert one.lr == (0.3 if is_baseline else 0.1)
    too_large = "model.baseline_lr=0.3" if is_baseline else "model.lr=0.1"
    found = str(one.divergence_error("a loss is nan"))
    assert found == f"{too_large}, model.discriminator_lr=0.0001: training diverged (a loss is nan); lower one of them"
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
    names = {name for name, _ in task(coords=coords, method=VAE).encoder.named_parameters()}
    assert ("features.0.coord_weight" in names) == (coords == "xy")


# ------------------------------------------------------------------ figures


def test_logged_metrics_are_those_of_two_shape_metrics(tmp_path: Path) -> None:
    one = MadeUpGAN()
    there = data(image_size=SIZE, radius=RADIUS, num_val=101, num_test=41, eval_batch_size=7)
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(one, there, verbose=False)
    metrics = TwoShapeMetrics(SIZE, RADIUS)
    metrics.update(there.example_images(101, "val"), real=True)
    metrics.update(one.sample(one.draw_latents(51, EVALUATION_SEED)), real=False)
    expected = metrics.compute()
    found = {name: value.item() for name, value in run.callback_metrics.items()}
    names = [name for name in GenerativeTask.validation_metrics if name in expected]
    assert found == pytest.approx({f"val/{name}": expected[name].item() for name in names}, rel=1e-4)
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


class Drawing(Callback):
    """Draws the pictures of a test, and notes how many images are made for them."""

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:  # noqa: ANN401  # Lightning's
        before = len(pl_module.batches)
        GenerativePictures(centers=64).draw(pl_module.eval(), trainer.datamodule)  # type: ignore[attr-defined]  # set by the trainer
        self.made = sum(pl_module.batches[before:])


def test_the_walks_of_a_test_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[WalkMeasurements] = []
    for name in ("plot_average", "plot_centers", "as_picture"):
        monkeypatch.setattr(f"generative.pictures.{name}", lambda *unused: None)
    monkeypatch.setattr("generative.pictures.plot_walks", lambda walks, *unused: drawn.append(walks))
    one, drawing = MadeUpGAN(), Drawing()
    there = data(image_size=SIZE, radius=RADIUS, num_test=41)
    trainer(tmp_path, callbacks=[drawing]).test(one, there, verbose=False)
    each = -(-WALKS // 6)
    assert drawn[0].axes.tolist() == [axis for axis in range(6) for _ in range(each)]
    walked = STEPS * 6 * each
    assert sum(one.batches) - drawing.made == 21 + walked, "images of the test itself"
    assert drawing.made < walked
    GenerativePictures(centers=64).draw(one, there)
    one.rule = lambda latents: everywhere(-latents)  # as if it were trained
    GenerativePictures(centers=64).draw(one, there)
    of_test, alone, changed = (walks.centers[walks.valid] for walks in drawn)
    assert torch.equal(of_test, alone)
    assert not torch.equal(of_test, changed)


def test_each_walk_goes_through_a_point_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[torch.Tensor] = []
    reaches: list[float] = []

    def measure(sample: Any, latents: torch.Tensor, axes: torch.Tensor, radius: int, *, reach: float) -> None:  # noqa: ANN401
        points.append(latents)
        reaches.append(reach)

    monkeypatch.setattr("generative.tasks.base.measure_walks", measure)
    one = task(method=VAE)
    for _ in range(2):
        one.measure_walks(RADIUS)
    assert len(points[0].unique(dim=0)) == len(points[0]) >= WALKS
    assert torch.equal(*points), "always the same walks"
    assert reaches == [one.walk_reach] * 2


def test_the_bound_of_a_vae_is_evaluated_with_the_whole_weight(tmp_path: Path) -> None:
    one = task(method=VAE, kl_weight=3.0, kl_warmup=0.5).eval()
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


OUT_OF_RANGE: list[tuple[type[GenerativeTask], dict[str, Any], str]] = [
    (GAN, {"image_size": 12}, "model.image_size=12: must be a power of two of at least 8"),
    (GAN, {"image_size": 4}, "model.image_size=4: must be a power of two of at least 8"),
    (GAN, {"baseline_width": 0}, "model.baseline_width=0: must be an integer of at least 1"),
    (GAN, {"baseline_lr": 0.0}, "model.baseline_lr=0.0: must be above 0"),
    (GAN, {"lr": float("nan")}, "model.lr=nan: must be above 0"),
    (GAN, {"average": 1.0}, "model.average=1.0: must be in [0, 1)"),
    (GAN, {"lr_milestones": [0.5, 2.0]}, "model.lr_milestones=[0.5, 2.0]: must be fractions of the training in (0, 1)"),
    (GAN, {"lr_gamma": 0.0}, "model.lr_gamma=0.0: must be above 0 and at most 1"),
    (GAN, {"penalty_every": 0}, "model.penalty_every=0: must be an integer of at least 1"),
    (GAN, {"generator_steps": 10**12}, f"model.generator_steps={10**12}: must be an integer from 1 to 1000"),
    (GAN, {"discriminator_lr": 0.0}, "model.discriminator_lr=0.0: must be above 0"),
    (
        GAN,
        {"compile": True, "norm": True, "gradient_penalty": 1.0},
        "model.compile=True: cannot train with norm and gradient_penalty; set model.norm=false",
    ),
    (VAE, {"encoder_width": 0}, "model.encoder_width=0: must be an integer of at least 1"),
    (VAE, {"kl_warmup": 1.0}, "model.kl_warmup=1.0: must be in [0, 1)"),
    (VAE, {"channel_weights": (1.0, 1.0)}, "model.channel_weights=(1.0, 1.0): must be three numbers of at least 0"),
    (VAE, {"channel_weights": (1.0, -1.0, 1.0)}, "model.channel_weights=(1.0, -1.0, 1.0): must be three numbers of"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), OUT_OF_RANGE)
def test_impossible_values_are_refused_in_one_line(
    method: type[GenerativeTask], arguments: dict[str, Any], message: str
) -> None:
    """Those of the baseline in the other arm, too."""
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        task(method, coords="xy", **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "source", "monitor", "mode"),
    [
        (GAN, "shapes", "val/coverage", "max"),
        (VAE, "shapes", "val/coverage", "max"),
        (GAN, "folder", "val/patch_distance", "min"),
        (VAE, "folder", "val/loss", "min"),
    ],
)
def test_monitored_metric_depends_on_the_data(
    tmp_path: Path, method: type[GenerativeTask], source: str, monitor: str, mode: str
) -> None:
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


def test_kl_warmup_needs_max_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^model\.kl_warmup=0\.5: must be 0 without trainer\.max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(task(method=VAE, kl_warmup=0.5), data())


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"limit_val_batches": 4}, "limit_val_batches=4: evaluates 16 of 40 images"),
        ({"limit_val_batches": 0.49}, "limit_val_batches=0.49: evaluates 16 of 40 images"),
        ({"overfit_batches": 1}, "overfit_batches=1: evaluates 4 of 40 images"),
        ({"limit_test_batches": 1}, "limit_test_batches=1: evaluates 4 of 40 images"),
    ],
)
def test_limits_that_leave_too_few_images_to_compare_are_refused(
    tmp_path: Path, limits: dict[str, Any], message: str
) -> None:
    run = trainer(tmp_path, **limits)
    evaluate = run.test if "limit_test_batches" in limits else run.validate
    expected = f"trainer.{message} (data.eval_batch_size=4), must be at least 20"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        evaluate(task(), data(eval_batch_size=4))

"""The task: losses, rates, arms, figures, and what it refuses."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from torch import Tensor, nn
from torchvision.transforms import v2

from classification.tasks import Classifier
from classification.transforms import IMAGENET_MEAN, IMAGENET_STD
from coordconv_apps.training.weight_averaging import Averaging
from tests.classification.tiny import SIZE, data, save_parts, task, trainer, weights_file
from tests.helpers.images import damage
from tests.helpers.trainers import OWN_TRAINER

if TYPE_CHECKING:
    from pathlib import Path

    from classification.datasets import LabelledBatch

pytestmark = OWN_TRAINER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_parts(tmp_path_factory.mktemp("pictures"))


class Watch(Callback):
    """Keeps, of every batch: itself, the network before it, the loss, and the rates after it."""

    def __init__(self) -> None:
        self.batches: list[LabelledBatch] = []
        self.networks: list[nn.Module] = []
        self.losses: list[float] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: LabelledBatch, batch_idx: int) -> None:  # noqa: ANN401  # Lightning's
        self.batches.append(batch)
        self.networks.append(copy.deepcopy(pl_module.network))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *unused: Any) -> None:  # noqa: ANN401  # Lightning's
        self.losses.append(float(outputs["loss"]))
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def watched(folder: Path, one: Classifier, there: Any, **arguments: Any) -> Watch:  # noqa: ANN401
    watch = Watch()
    trainer(folder, callbacks=[watch], **arguments).fit(one, there)
    return watch


# ------------------------------------------------------------------ loss


@pytest.mark.parametrize(("mixup", "cutmix", "repeats"), [(0.0, 0.0, 1), (0.7, 0.0, 1), (0.0, 1.0, 2)])
def test_the_loss_is_the_cross_entropy_with_mixed_and_smoothed_targets(
    folder: Path, tmp_path: Path, mixup: float, cutmix: float, repeats: int
) -> None:
    seed_everything(0)
    there = data(folder, mixup=mixup, cutmix=cutmix, repeats=repeats)
    one = task(coords="xyr", network_args={"width_mult": 0.1, "dropout": 0.0}, label_smoothing=0.3)
    watch = watched(tmp_path, one, there, precision="64-true")  # batch norm over 8 images amplifies rounding
    assert len(watch.losses) == 3 * repeats
    is_mixed = []
    for number, (batch, network, loss) in enumerate(zip(watch.batches, watch.networks, watch.losses, strict=True)):
        pixels = v2.functional.to_dtype(batch.images, torch.float64, scale=True)
        normalised = v2.functional.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_STD))
        images, targets = there.mix_batch(normalised.clone(), batch.labels, 0, number)
        is_mixed.append(not torch.equal(images, normalised))  # a box of CutMix may have no area
        # Each class of a picture gets its share of 0.7, and every class a third of 0.3.
        smoothed = 0.7 * targets + 0.1
        with torch.no_grad():
            expected = -(smoothed * network(images).log_softmax(1)).sum(1).mean()
        assert loss == pytest.approx(float(expected), rel=1e-5)
        assert batch.indices.unique_consecutive(return_counts=True)[1].tolist() == [repeats] * (8 // repeats)
    assert any(is_mixed) == bool(mixup or cutmix)


def test_a_trained_network_normalises_images_itself(folder: Path, tmp_path: Path) -> None:
    """By the mean and deviation of its training, whatever the data say later."""
    weights = str(weights_file(tmp_path / "weights.pth"))
    one, colours = task(coords="xyr", weights=weights), {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    run = trainer(tmp_path)
    run.fit(one, data(folder, **colours))
    run.save_checkpoint(tmp_path / "a.ckpt")
    run.validate(one, data(folder), verbose=False)
    opened = Classifier.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu").eval()
    batch = data(folder).images_at(range(11), "val")
    images = v2.functional.to_dtype(batch.images, torch.float32, scale=True)
    with torch.no_grad():
        expected = opened.network(v2.functional.normalize(images, *map(list, colours.values())))
        for network in (one.eval(), opened):
            torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(network(batch.images), expected, rtol=1e-3, atol=1e-3)
    untrained = task()
    run.validate(untrained, data(folder, **colours), verbose=False)
    assert untrained.std.tolist() == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_trains_and_evaluates(folder: Path, tmp_path: Path, precision: Any) -> None:  # noqa: ANN401
    # In half precision with channels last, torch's CPU gradient of a depthwise weight reads memory that nobody wrote.
    one = task(coords="xyr", label_smoothing=0.1, channels_last=False)
    run = trainer(tmp_path, precision=precision, limit_val_batches=1.0, gradient_clip_val=1.0)
    run.fit(one, data(folder, mixup=0.5))
    assert {name: value for name, value in run.callback_metrics.items() if not value.isfinite()} == {}
    assert {"train/loss", "val/loss"} <= set(run.callback_metrics)
    assert one.mean.tolist() == pytest.approx([0.485, 0.456, 0.406], rel=1e-2)
    kept = torch.float32 if precision == "bf16-mixed" else torch.bfloat16
    assert {parameter.dtype for parameter in one.parameters()} == {kept}


# ------------------------------------------------------------------ recipe


@pytest.mark.parametrize(
    ("arguments", "accumulate", "peak"),
    [
        ({"lr": 0.4}, 1, 0.4 * 8 / 256),
        ({"lr": 0.4}, 3, 0.4 * 8 * 3 / 256),
        ({"lr": 0.4, "scale_lr": False}, 3, 0.4),
        ({"lr": 0.4, "optimizer": "adamw"}, 1, 0.4 * 8 / 256),
    ],
)
def test_rates_follow_the_scaled_schedule_step_by_step(
    folder: Path, tmp_path: Path, arguments: dict[str, Any], accumulate: int, peak: float
) -> None:
    one = task(warmup=0.5, **arguments)
    watch = watched(tmp_path, one, data(folder), max_epochs=2, accumulate_grad_batches=accumulate)
    steps = 6 // accumulate
    assert one.run_facts == {
        "global_batch_size": 8 * accumulate,
        "peak_lr": pytest.approx(peak),
        "optimizer_steps": steps,
    }
    for batch, rates in enumerate(watch.rates, start=1):
        done = batch // accumulate
        climb = min((done + 1) / (0.5 * steps), 1)
        assert rates == pytest.approx([peak * climb * (1 + math.cos(math.pi * done / steps)) / 2] * 2, abs=1e-9)


def test_a_batch_is_at_most_the_training_set(folder: Path, tmp_path: Path) -> None:
    one = task(lr=0.4)
    watched(tmp_path, one, data(folder, batch_size=10**12))
    assert one.run_facts == {"global_batch_size": 24, "peak_lr": pytest.approx(0.4 * 24 / 256), "optimizer_steps": 1}


def test_a_constant_rate_needs_no_end(folder: Path, tmp_path: Path) -> None:
    one = task(schedule="constant", lr=0.32)
    watch = watched(tmp_path, one, data(folder), max_epochs=-1, max_time={"seconds": 1})
    assert watch.rates[0] == pytest.approx([0.01, 0.01])
    assert one.run_facts["optimizer_steps"] == math.inf


def test_average_adds_the_averaging_callback() -> None:
    (averaging,) = task(average=0.25).configure_callbacks()
    assert isinstance(averaging, Averaging)
    assert averaging.decay == 0.25
    assert task().configure_callbacks() == []


def test_compile_compiles_the_network(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That compiled layers give the same outputs is tested with the layers: compiling a network takes a minute."""
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    for asked in (False, True):
        one = task(compile=asked)
        trainer(tmp_path, limit_val_batches=1).validate(one, data(folder), verbose=False)
        assert compiled == [one.network] * asked


@pytest.mark.parametrize("last", [False, True])
def test_channels_last_keeps_the_outputs(tmp_path: Path, last: bool) -> None:
    weights = str(weights_file(tmp_path / "weights.pth"))
    layout = torch.channels_last if last else torch.contiguous_format
    seen: list[Tensor] = []
    seed_everything(0)
    one = task(coords="xyr", weights=weights, channels_last=last).eval()
    first = next(module for module in one.network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    seed_everything(0)
    other = task(coords="xyr", weights=weights, channels_last=not last).eval()
    torch.testing.assert_close(one(images), other(images), rtol=1e-4, atol=1e-4)
    assert (one(images)[0] - one(images)[1]).abs().max() > 0.01, "a test of nothing else"
    assert seen[0].is_contiguous(memory_format=layout)
    wide = [p for p in one.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert wide
    assert all(parameter.is_contiguous(memory_format=layout) for parameter in wide)


# ------------------------------------------------------------------ figures


def test_logged_metrics_are_those_of_scikit_learn(folder: Path, tmp_path: Path) -> None:
    seed_everything(0)
    weights = str(weights_file(tmp_path / "weights.pth"))
    one, there = task(coords="xyr", weights=weights), data(folder, eval_size=20)
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.fit(one, there)
    batch = there.images_at(range(11), "val")
    assert batch.images.shape == (11, 3, 20, 20)
    with torch.no_grad():
        probabilities = one.eval()(batch.images).double().softmax(1)
    assert probabilities.std(0).max() > 0.01, "a test of nothing else"
    labels, found = batch.labels.numpy(), probabilities.argmax(1).numpy()
    logged = {name: value.item() for name, value in run.callback_metrics.items()}
    assert logged["val/accuracy"] == pytest.approx(accuracy_score(labels, found))
    assert logged["val/class_accuracy"] == pytest.approx(balanced_accuracy_score(labels, found))
    assert logged["val/loss"] == pytest.approx(log_loss(labels, probabilities.numpy()), rel=1e-5)
    assert "val/calibration_error" in logged
    assert "val/accuracy_top5" not in logged, "of three classes"
    assert one.image_size == 20
    assert one.class_names == ["ant", "bee", "cat"]


def test_a_checkpoint_of_a_plain_trainer_warns_of_another_size(folder: Path, tmp_path: Path) -> None:
    """It has no arguments of the data, whose defaults would change the predictions unnoticed."""
    path, run = tmp_path / "a.ckpt", trainer(tmp_path)
    run.fit(task(), data(folder))
    run.save_checkpoint(path)
    same = data(folder, predict_images=str(folder / "val"))
    run.predict(task(), same, ckpt_path=path)
    other = data(folder, predict_images=str(folder / "val"), eval_size=20)
    message = r"^data.eval_size=20, data.eval_resize=20: the training of the checkpoint had data.eval_size=16, "
    for evaluate in (run.predict, run.validate):
        with pytest.warns(UserWarning, match=message):
            evaluate(task(), datamodule=other, ckpt_path=path)


def test_unreadable_images_are_counted_once(tmp_path: Path) -> None:
    """Damaged ones of both parts, and one that cannot even be opened; also without any validation."""
    root = save_parts(tmp_path / "pictures")
    (root / "train" / "ant" / "99.png").write_bytes(b"this is no picture")
    for path in (root / "train" / "bee" / "01.png", root / "val" / "cat" / "00.png"):
        damage(path)
    for validated, count in ((0, 2), (1.0, 3)):
        one = task()
        run = trainer(tmp_path, limit_val_batches=validated, max_epochs=2)
        with pytest.warns(UserWarning, match="not a readable image"):
            run.fit(one, data(root, on_bad_image="skip"))
        assert one.run_facts["bad_images"] == count
        if validated:
            with pytest.warns(UserWarning, match="not a readable image"):
                run.test(one, data(root, on_bad_image="skip"), verbose=False)
            assert one.run_facts["bad_images"] == 1


def test_nothing_is_counted_where_unreadable_images_are_errors(folder: Path, tmp_path: Path) -> None:
    one = task()
    trainer(tmp_path).validate(one, data(folder), verbose=False)
    assert "bad_images" not in one.run_facts


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": None}, "model.num_classes=null: must be the number of classes of the data"),
        ({"num_classes": 1}, "model.num_classes=1: must be an integer of at least 2"),
        ({"lr": 0.0}, "model.lr=0.0: must be above 0"),
        ({"momentum": 1.0}, "model.momentum=1.0: must be in [0, 1)"),
        ({"betas": (0.9, 1.0)}, "model.betas=(0.9, 1.0): must be two numbers in [0, 1)"),
        ({"label_smoothing": 1.0}, "model.label_smoothing=1.0: must be in [0, 1)"),
        ({"average": 1.0}, "model.average=1.0: must be in [0, 1)"),
        ({"warmup": 1.0}, "model.warmup=1.0: must be in [0, 1)"),
    ],
)
def test_impossible_values_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is compared below
        task(**arguments)
    assert str(caught.value) == message


def test_class_names_and_resize_in_a_checkpoint_are_checked() -> None:
    one = task()
    with pytest.raises(ValueError, match=r"checkpoint\.class_names=\[1, \{\}\]: must be a list of texts"):
        one.on_load_checkpoint({"class_names": [1, {}]})
    with pytest.raises(ValueError, match=r"checkpoint\.eval_resize=x: must be an integer of at least 0"):
        one.on_load_checkpoint({"class_names": ["cat"], "eval_resize": "x"})


def test_nesterov_needs_momentum(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^model\.nesterov=True: must be false with model\.momentum=0$"):
        trainer(tmp_path).fit(task(nesterov=True, momentum=0.0), data(folder))

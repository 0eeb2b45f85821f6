"""The task: what is trained, how, and on what; its figures, its clock, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

from coordconv_apps.coordinates.data import NotSoClevrBatch, NotSoClevrData
from coordconv_apps.coordinates.losses import full_cross_entropy
from coordconv_apps.coordinates.models import GrowingNet, PixelClassifier, PositionNet, StridedRegressor
from coordconv_apps.coordinates.not_so_clevr import all_centers, one_hot, render
from coordconv_apps.coordinates.tasks import CoordinateTask, base
from tests.coordinates.harness import METRICS, TASKS, TaskName, make_task
from tests.helpers.trainers import OWN_TRAINER, own_trainer

pytestmark = [
    *OWN_TRAINER,
    # Of training steps without a trainer.
    pytest.mark.filterwarnings("ignore:You are trying to `self.log"),
]

SAMPLED: dict[str, Any] = {"loss": "sampled", "near": 1, "others": 8}
EVERY_TASK = pytest.mark.parametrize("name", TASKS)


def task(name: TaskName = "classification", **arguments: Any) -> CoordinateTask:  # noqa: ANN401  # handed on as they are
    return make_task(name, **{"coords": "xy", "canvas_size": 8, "square_size": 3, **arguments})


def data(**arguments: Any) -> NotSoClevrData:  # noqa: ANN401  # handed on as they are
    return NotSoClevrData(**{"split": "quadrant", "canvas_size": 8, "square_size": 3, **arguments})


def all_samples() -> NotSoClevrBatch:
    return NotSoClevrBatch(all_centers(8, 3).unsqueeze(1))


# ------------------------------------------------------------------ losses and figures


def test_losses_are_those_of_the_paper() -> None:
    batch = all_samples()
    centers = batch.centers
    torch.manual_seed(0)
    tasks: dict[str, CoordinateTask] = {name: task(name) for name in TASKS}
    tasks["mse"] = task("rendering", loss="mse")
    logits = {name: one(centers) for name, one in tasks.items()}
    images = render(centers, 8, 3)
    probabilities = {name: logits[name].sigmoid() for name in ("rendering", "mse")}
    likelihood = torch.where(images == 1, probabilities["rendering"], 1 - probabilities["rendering"])
    expected = {
        "classification": full_cross_entropy(logits["classification"], centers),
        # Positions are in pixels, the loss is that of shares of the canvas.
        "regression": ((logits["regression"] - centers[:, 0]) / 8).square().mean(),
        "rendering": -likelihood.log().mean(),
        "mse": (probabilities["mse"] - images).square().mean(),
    }
    for name, one in tasks.items():
        assert one.training_step(batch, 0).item() == pytest.approx(expected[name].item(), rel=1e-5), name


@pytest.mark.parametrize("network", ["paper", "dense", "strided"])
@pytest.mark.parametrize("square_size", [1, 2, 3, 4])
def test_positions_are_in_pixels(network: str, square_size: int) -> None:
    """Wherever a centre may lie, on the border too."""
    one = task("regression", network=network, canvas_size=16, square_size=square_size)
    with torch.no_grad():
        for parameter in one.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    one.eval()
    centers = all_centers(16, square_size).unsqueeze(1)
    shares = one.network(one_hot(centers, 16).unsqueeze(1))
    torch.testing.assert_close(one(centers), 16 * shares, rtol=1e-4, atol=1e-4)


def test_sampled_loss_is_for_the_papers_network() -> None:
    batch = all_samples()
    for network, same in (("paper", False), ("deconv", True)):
        torch.manual_seed(0)
        one = task(network=network, loss="sampled", near=1, others=4)
        full = full_cross_entropy(one(batch.centers), batch.centers)
        assert torch.equal(one.training_step(batch, 0), full) == same


def test_sampled_loss_depends_on_its_arguments() -> None:
    torch.manual_seed(0)
    one, batch = task(loss="sampled", near=0, others=4), all_samples()
    values = {}
    for changed in ({}, {"near": 1}, {"others": 9}, {"others_weight": 0.5}, {"near": 8}):
        for name, value in {"near": 0, "others": 4, "others_weight": 1.0, **changed}.items():
            setattr(one, name, value)
        torch.manual_seed(0)
        values[str(changed)] = one.training_step(batch, 0).item()
    assert len(set(values.values())) == len(values)
    assert values["{'near': 8}"] == pytest.approx(
        full_cross_entropy(one(batch.centers), batch.centers).item(), rel=1e-5
    )


@EVERY_TASK
def test_both_sets_are_evaluated(tmp_path: Path, name: Any) -> None:  # noqa: ANN401  # parametrised
    seed_everything(0)
    one, squares = task(name), data(eval_batch_size=7)
    with torch.no_grad():
        for parameter in one.network.parameters():  # away from an empty picture
            parameter.add_(0.2 * torch.randn_like(parameter))
    run = own_trainer(tmp_path)
    tested: dict[str, float] = {}
    for logged in run.test(one, squares, verbose=False):
        tested |= logged
    assert set(tested) == {f"test/{prefix}{figure}" for prefix in ("", "train_") for figure in METRICS[name]}
    one.eval()
    for prefix, centers in (("", squares.centers.test), ("train_", squares.centers.train)):
        with torch.no_grad():
            outputs = one(centers)
        x, y = centers[:, 0].unbind(1)
        if name == "classification":
            best = outputs.flatten(1).argmax(1)
            right = ((best % 8 == x) & (best // 8 == y)).float().mean()
            assert tested[f"test/{prefix}accuracy"] == pytest.approx(right.item())
        elif name == "regression":
            distances = ((outputs[:, 0] - x).square() + (outputs[:, 1] - y).square()).sqrt()
            assert tested[f"test/{prefix}euclidean_distance"] == pytest.approx(distances.mean().item(), rel=1e-5)
        else:
            images, found = render(centers, 8, 3).bool(), outputs.sigmoid() > 0.5
            assert found.any(), "a test of nothing else"
            overlap = (images & found).sum((1, 2)) / (images | found).sum((1, 2))
            assert tested[f"test/{prefix}iou"] == pytest.approx(overlap.mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "monitor", "mode", "headline"),
    [
        ("classification", "val/train_accuracy", "max", "val/accuracy"),
        ("regression", "val/train_euclidean_distance", "min", "val/euclidean_distance"),
        ("rendering", "val/train_iou", "max", "val/iou"),
    ],
)
def test_best_checkpoint_is_chosen_by_the_training_set_alone(
    name: TaskName, monitor: str, mode: str, headline: str
) -> None:
    one = TASKS[name]
    assert (one.monitor, one.monitor_mode, one.headline) == (monitor, mode, headline)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("classification", {}),
        ("classification", {"network": "deconv", "coords": "none"}),
        ("regression", {}),
        ("regression", {"network": "dense", "coords": "none"}),
        ("rendering", {}),
        ("rendering", {"loss": "mse", "network": "upsample"}),
        ("rendering", {"loss": "sampled", "near": 6}),
        ("rendering", {"loss": "full", "center_weight": 0.5}),
    ],
)
def test_a_step_lowers_the_loss(tmp_path: Path, name: Any, arguments: dict[str, Any]) -> None:  # noqa: ANN401
    seed_everything(0)
    one, squares = task(name, lr=1e-4, **arguments), data(batch_size=100)

    def loss() -> float:
        torch.manual_seed(1)
        return one.train().training_loss(squares.centers.train).item()

    before = loss()
    own_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(one, squares)
    assert loss() < before


def test_a_step_of_the_sampled_loss_lowers_the_full_one(tmp_path: Path) -> None:
    seed_everything(0)
    one, squares = task(loss="sampled", near=1, others=32, lr=1e-3), data(batch_size=100)
    centers = squares.centers.train
    before = full_cross_entropy(one(centers), centers)
    own_trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(one, squares)
    assert full_cross_entropy(one(centers), centers) < before


@EVERY_TASK
@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train(tmp_path: Path, name: Any, precision: Any) -> None:  # noqa: ANN401  # parametrised
    seed_everything(0)
    one = task(name, **SAMPLED if name == "classification" else {})
    before = [parameter.detach().clone() for parameter in one.network.parameters()]
    run = own_trainer(tmp_path, max_epochs=1, precision=precision)
    run.fit(one, data())
    assert run.callback_metrics[one.monitor].isfinite()
    assert run.callback_metrics["train/loss"].isfinite()
    kind = torch.float64 if precision == "64-true" else torch.float32
    for parameter, old in zip(one.network.parameters(), before, strict=True):
        assert parameter.dtype == kind
        assert parameter.isfinite().all()
        if parameter.numel() > 1:  # but for the bias of all logits, which classification does not see
            assert not torch.equal(parameter, old.to(kind))


@pytest.mark.parametrize(
    ("name", "network"), [("classification", "deconv"), ("regression", "strided"), ("regression", "dense")]
)
def test_weight_decay_is_for_the_weights_of_layers(tmp_path: Path, name: Any, network: Any) -> None:  # noqa: ANN401
    one = task(name, network=network, weight_decay=0.25, lr=0.125, beta2=0.5)
    run = own_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    run.fit(one, data())
    (optimizer,) = run.optimizers
    assert isinstance(optimizer, torch.optim.Adam)
    decay: dict[nn.Parameter, float] = {}
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (0.125, (0.9, 0.5))
        decay |= {parameter: group["weight_decay"] for parameter in group["params"]}
    kinds: set[str] = set()
    for layer in one.network.modules():
        for attribute, parameter in layer.named_parameters(recurse=False):
            norm = isinstance(layer, nn.BatchNorm2d)
            kinds.add("norm" if norm else attribute)
            assert decay.pop(parameter) == (0.25 if attribute.endswith("weight") and not norm else 0), attribute
    assert not decay, "no other parameters"
    assert kinds == {"weight", "coord_weight", "bias"} | (set() if network == "dense" else {"norm"})


def test_weights_without_a_gradient_shrink(tmp_path: Path) -> None:
    """The penalty is of the squares (L2), not of the values."""
    seed_everything(0)
    one = task(weight_decay=1e9, lr=0.01)  # the gradient is nothing against it: Adam's first step has the length lr
    before = {name: p.detach().clone() for name, p in one.network.named_parameters()}
    own_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(one, data())
    for name, parameter in one.network.named_parameters():
        if parameter.dim() > 1:
            torch.testing.assert_close(parameter.detach(), before[name] - 0.01 * before[name].sign())


@pytest.mark.parametrize(("coords", "is_baseline"), [("none", True), ("xy", False), ("xyr", False)])
def test_the_baseline_is_for_coords_none_alone(coords: Any, is_baseline: bool) -> None:  # noqa: ANN401  # parametrised
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.2, "baseline_lr": 0.3, "baseline_weight_decay": 0.0}
    one = task(coords=coords, network="paper", baseline="deconv", **settings)
    assert type(one.network) is (GrowingNet if is_baseline else PixelClassifier)
    assert (one.lr, one.weight_decay) == ((0.3, 0.0) if is_baseline else (0.1, 0.2))
    too_large = "model.baseline_lr=0.3" if is_baseline else "model.lr=0.1"
    assert str(one.divergence_error("a loss is nan")) == f"{too_large}: training diverged (a loss is nan); lower it"
    regression = task("regression", coords=coords, baseline="budget")
    assert type(regression.network) is (StridedRegressor if is_baseline else PositionNet)
    without = task(coords=coords, baseline=None, **settings)
    assert type(without.network) is PixelClassifier
    assert (without.lr, without.weight_decay) == (0.1, 0.2)


@pytest.mark.parametrize("coords", ["none", "xy"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "dense"}, r"model\.baseline=dense: must be paper, deconv, upsample or budget"),
        ({"baseline_lr": -1.0}, r"model\.baseline_lr=-1\.0: must be above 0"),
        ({"baseline_weight_decay": -1.0}, r"model\.baseline_weight_decay=-1\.0: must be at least 0"),
    ],
)
def test_a_wrong_baseline_is_an_error_in_both_arms(coords: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(coords=coords, **arguments)
    for names in ({"network": "paper"}, {"network": "deconv", "baseline": "paper"}):
        with pytest.raises(ValueError, match=r"model\.near=5: must be above 5 with model\.loss=sampled"):
            task("rendering", coords=coords, loss="sampled", near=5, **names)


def test_the_rate_follows_its_schedule(tmp_path: Path) -> None:
    one = task(schedule="step", lr=1.0, lr_milestones=[0.5], lr_gamma=0.25)
    run = own_trainer(tmp_path, max_steps=3, limit_val_batches=0)
    run.fit(one, data(batch_size=8))
    assert run.optimizers[0].param_groups[0]["lr"] == 0.25


# ------------------------------------------------------------------ the end of a training


@pytest.mark.parametrize(("loss", "split"), [("full", "quadrant"), ("sampled", "uniform")])
def test_a_training_ends_when_both_sets_are_perfect(tmp_path: Path, loss: Any, split: Any) -> None:  # noqa: ANN401
    seed_everything(0)
    one = task(loss=loss, near=1, others=16, lr=0.01)
    run = own_trainer(tmp_path, max_epochs=300)
    run.fit(one, data(split=split))
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert 1 < run.current_epoch < 300
    assert logged["val/accuracy"] == logged["val/train_accuracy"] == 1
    assert logged["epochs_to_perfect"] == run.current_epoch
    assert 0 < logged["time_to_perfect"] == logged["val/seconds"]


def perfect_from(epoch: int, one: CoordinateTask, monkeypatch: pytest.MonkeyPatch, *, test_set: bool = True) -> None:
    """Lets the figures be perfect in one epoch and after it."""
    bad = 0.0 if one.monitor_mode == "max" else 5.0
    perfect = one.perfect_value if one.monitor_mode == "max" else one.perfect_value - 0.01

    def metrics(metrics: nn.ModuleList, stage: str) -> dict[str, torch.Tensor]:
        value = perfect if one.current_epoch >= epoch else bad
        names = (one.headline.removeprefix("val/"), one.monitor.removeprefix("val/"))
        return dict(zip(names, torch.tensor([value if test_set else bad, value], dtype=torch.float64), strict=True))

    monkeypatch.setattr(one, "evaluation_metrics", metrics)


@EVERY_TASK
def test_what_is_perfect_depends_on_the_task(
    tmp_path: Path,
    name: Any,  # noqa: ANN401  # parametrised
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = task(name)
    perfect_from(2, one, monkeypatch)
    run = own_trainer(tmp_path, max_epochs=5)
    run.fit(one, data())
    assert run.current_epoch == 3
    assert run.callback_metrics["epochs_to_perfect"] == 3


def test_one_perfect_set_is_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task()
    perfect_from(0, one, monkeypatch, test_set=False)
    run = own_trainer(tmp_path, max_epochs=2)
    run.fit(one, data())
    assert run.current_epoch == 2
    assert "epochs_to_perfect" not in run.callback_metrics


def test_a_training_continues_without_stop_when_perfect_and_keeps_its_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(stop_when_perfect=False)
    perfect_from(1, one, monkeypatch)
    run = own_trainer(tmp_path, max_epochs=4)
    run.fit(one, data())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert run.current_epoch == 4
    assert logged["epochs_to_perfect"] == 2
    assert 0 < logged["time_to_perfect"] < logged["val/seconds"]


def test_evaluation_alone_has_no_clock_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task()
    perfect_from(0, one, monkeypatch)
    run = own_trainer(tmp_path)
    run.validate(one, data(), verbose=False)
    assert not {"val/seconds", "time_to_perfect", "epochs_to_perfect"} & set(run.callback_metrics)
    assert not run.should_stop


def test_exact_batch_norms_see_the_whole_training_set(tmp_path: Path) -> None:
    sees: dict[bool, tuple[torch.Tensor, torch.Tensor]] = {}
    for exact in (False, True):
        seed_everything(0)
        one = task(coords="none", network="deconv", exact_batch_norm=exact)
        run, on = own_trainer(tmp_path, max_epochs=1), data()
        run.fit(one, on)
        assert isinstance(one.network, GrowingNet)
        first, norm = one.network.layers[0], one.network.layers[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.momentum == 0.1
        positions = on.centers.train.flatten(1) * (2 / 7) - 1
        with torch.no_grad():
            sees[exact] = norm.running_mean.clone(), first(positions[:, :, None, None]).mean((0, 2, 3))
    torch.testing.assert_close(sees[False][1], sees[True][1])  # training does not change
    torch.testing.assert_close(*sees[True])
    assert (sees[False][0] - sees[False][1]).abs().max() > 0.01


def test_exact_batch_norms_see_batches_that_are_like_the_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The centres are in the order of the rows: a few neighbours have nearly the same y."""
    variances = []
    for size in (1000, 32):
        monkeypatch.setattr(base, "STATISTICS_BATCH", size)
        seed_everything(0)
        one = task(coords="none", network="deconv", canvas_size=32, exact_batch_norm=True)
        own_trainer(tmp_path, max_epochs=1, limit_train_batches=1).fit(one, data(canvas_size=32))
        assert isinstance(one.network, GrowingNet)
        norm = one.network.layers[1]
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        variances.append(norm.running_var)
    torch.testing.assert_close(variances[1], variances[0], rtol=0.1, atol=1e-4)


# ------------------------------------------------------------------ export


@EVERY_TASK
def test_example_inputs_are_for_the_exported_network(name: Any) -> None:  # noqa: ANN401  # parametrised
    objects = 2 if name == "rendering" else 1
    one = task(name, **({"objects": 2} if name == "rendering" else {})).eval()
    outputs = one.export_module()(*one.example_inputs())
    middle = torch.full((2, objects, 2), 4)
    expected = one(middle) / 8 if name == "regression" else one(middle)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    names = {"classification": ["centers", "logits"], "regression": ["images", "positions"]}
    inputs, described, _ = one.export_interface()
    assert [*inputs, *described] == names.get(name, ["centers", "logits"])


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("own", "there", "message"),
    [
        ({"canvas_size": 16}, {}, "model.canvas_size=16: the data have 8"),
        ({"square_size": 4}, {}, "model.square_size=4: the data have 3"),
        ({}, {"two_objects": True, "pairs": 8}, "model.objects=1: the data have 2"),
        ({"objects": 2}, {}, "model.objects=2: the data have 1"),
    ],
)
def test_data_must_be_those_of_the_network(
    tmp_path: Path, own: dict[str, Any], there: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        own_trainer(tmp_path, max_epochs=1).fit(task("rendering", **own), data(**there))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("classification", {"lr": 0.0}, r"model\.lr=0\.0: must be above 0"),
        ("classification", {"beta2": 1.0}, r"model\.beta2=1\.0: must be in \[0, 1\)"),
        ("classification", {"gain": 0.0}, r"model\.gain=0\.0: must be above 0"),
        ("classification", {"others": 0}, r"model\.others=0: must be an integer of at least 1"),
        ("classification", {"others_weight": 1.5}, r"model\.others_weight=1\.5: must be in \[0, 1\]"),
        ("rendering", {"objects": 3}, r"model\.objects=3: must be 1 or 2"),
        ("rendering", {"objects": 2, "loss": "sampled"}, r"model\.loss=sampled: needs model\.objects=1"),
        ("rendering", {"loss": "sampled", "near": 5}, r"model\.near=5: must be above 5"),
        ("regression", {"lr_milestones": [2.0]}, r"lr_milestones=\[2\.0\]"),
        ("regression", {"canvas_size": 7}, r"model\.canvas_size=7: must be an integer of at least 8"),
        ("rendering", {"width": 0}, r"model\.width=0: must be an integer of at least 1"),
        ("rendering", {"network": "upsample", "kernel_size": 4}, r"model\.kernel_size=4: must be odd for .*upsample"),
        ("classification", {"kernel_size": 1}, r"model\.kernel_size=1: must be an integer of at least 2"),
        ("classification", {"network": "dense"}, r"model\.network=dense: must be paper, deconv, upsample or budget"),
        ("regression", {"network": "deconv"}, r"model\.network=deconv: must be paper, dense, strided or budget"),
    ],
)
def test_impossible_values_are_refused_in_one_line(name: TaskName, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        task(name, **arguments)
    assert "\n" not in str(error.value)

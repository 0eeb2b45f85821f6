"""What all tasks share: training means, several runs of a trainer, precision, defaults, safe checkpoints."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from classification import Classifier
from coordconv_apps.coordinates import CoordinateClassification
from coordconv_apps.coordinates.data import NotSoClevrData
from coordconv_apps.coordinates.metrics import PixelAccuracy
from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.task import Task
from coordconv_apps.utils.errors import UserError
from detection import FasterRCNN
from generative import GAN
from rl.tasks import A2C
from tests.helpers.planted import Planted
from tests.helpers.trainers import OWN_TRAINER, own_trainer
from tests.toy.__main__ import main
from tests.toy.tasks import ToyHeatmap, ToyTask

pytestmark = OWN_TRAINER


def test_training_metrics_are_means_over_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    monkeypatch.setattr(ToyTask, "log_train", _watched(seen))
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--data.samples=21", "--data.batch_size=8"])
    assert [size for _, size in seen] == [8, 8, 5]
    expected = sum(loss * size for loss, size in seen) / 21
    summary = read_summary(tmp_path / "toy" / "default" / "version_0")
    assert summary["metrics"]["train/loss"] == pytest.approx(expected, rel=1e-6)
    assert "train/loss_step" not in summary["metrics"]


def test_training_means_are_over_the_samples_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples in two batches on one process, one on the other: a mean of the processes' means would be 5."""
    batches: list[list[tuple[float, int]]] = [[(1.0, 2), (4.0, 1)], [(8.0, 1)]]
    tasks = [Task(), Task()]
    logged: list[dict[str, float]] = [{}, {}]
    sums: list[Tensor] = []
    for task, own, values in zip(tasks, batches, logged, strict=True):
        monkeypatch.setattr(task, "log", lambda name, value, values=values, **_: values.update({name: value}))
        for value, size in own:
            task.log_train({"train/loss": torch.tensor(value)}, size)
        sums.append(task._train_sums["train/loss"])
    # What all processes have, added up; each hands in its own.
    total = torch.stack(sums).sum(0)
    strategy = SimpleNamespace(reduce=lambda own, reduce_op: total if reduce_op == "sum" else total / len(sums))
    for task, values in zip(tasks, logged, strict=True):
        task._trainer = SimpleNamespace(  # type: ignore[assignment]  # nothing else is asked of it
            strategy=strategy, is_last_batch=True, precision="32-true", optimizers=[], global_step=3
        )
        task.on_train_epoch_end()
        assert values["train/loss"] == (2 * 1.0 + 4.0 + 8.0) / 4
        assert task._train_sums == {}, "the next epoch starts anew"


@pytest.mark.parametrize("command", ["validate", "test"])
def test_metrics_are_reset_after_an_interrupted_evaluation(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook: an evaluation that was interrupted is repeated, and the task is trained after it."""
    task = CoordinateClassification(canvas_size=8, square_size=3, network="budget")
    data = NotSoClevrData(canvas_size=8, square_size=3)
    trainer = own_trainer(tmp_path, max_epochs=1)
    samples: list[int] = []
    evaluation_metrics = task.evaluation_metrics

    def fail_once(metrics: nn.ModuleList, split: EvaluationSplit) -> dict[str, Tensor]:
        samples.append(int(cast("PixelAccuracy", metrics[0]).count))
        if len(samples) == 1:
            raise KeyError("interrupted")
        return evaluation_metrics(metrics, split)

    monkeypatch.setattr(task, "evaluation_metrics", fail_once)
    with pytest.raises(KeyError, match="interrupted"):
        getattr(trainer, command)(task, datamodule=data, verbose=False)
    getattr(trainer, command)(task, datamodule=data, verbose=False)
    trainer.fit(task.train(), datamodule=data)  # the error left it in evaluation mode
    assert samples == [len(data.centers.test)] * 3


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_metrics_add_in_single_precision(command: str, tmp_path: Path) -> None:
    """A sum in bfloat16 stops growing when a sample is less than 1/256 of it."""
    task = CoordinateClassification(canvas_size=32, square_size=3, network="budget")
    data = NotSoClevrData(canvas_size=32, square_size=3, eval_batch_size=1)
    trainer = own_trainer(tmp_path, max_epochs=1, precision="bf16-true")
    getattr(trainer, command)(task, datamodule=data)
    centers = data.centers.train
    with task.inference():
        best = torch.cat([task(batch).flatten(1).argmax(1) for batch in centers.split(1)])
    expected = (torch.stack([best % 32, best // 32], 1) - centers[:, 0]).abs().sum(1).float().mean()
    name = f"{'test' if command == 'test' else 'val'}/train_manhattan_distance"
    assert trainer.callback_metrics[name] == pytest.approx(float(expected), rel=1e-4)


def _watched(seen: list[tuple[float, int]]) -> Callable[[Task, dict[str, Tensor], int], None]:
    log_train = Task.log_train

    def watched(task: Task, values: dict[str, Tensor], batch_size: int) -> None:
        seen.append((values["train/loss"].item(), batch_size))
        log_train(task, values, batch_size)

    return watched


def test_base_task_counts_trainable_parameters_and_has_no_exportable_network() -> None:
    task = Task("xy")
    assert task.coords == "xy"
    assert task.parameter_count() == 0
    toy = ToyTask(width=3)
    frozen = next(iter(toy.parameters())).requires_grad_(False)
    assert toy.parameter_count() == sum(p.numel() for p in toy.parameters()) - frozen.numel()
    for hook in (task.export_module, task.example_inputs, task.export_interface):
        with pytest.raises(ValueError, match=rf"^export: Task does not define {hook.__name__}\(\)$"):
            hook()


def test_lightning_loads_the_task_from_its_checkpoint(tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--model.coords=xyr", "--model.width=3"])
    path = tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "best.ckpt"
    task = ToyTask.load_from_checkpoint(path)
    assert task.coords == "xyr"
    saved = torch.load(path, weights_only=True)["state_dict"]
    for name, value in task.state_dict().items():
        assert torch.equal(value, saved[name])


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    checkpoint = {"state_dict": ToyTask(width=3).state_dict(), "hyper_parameters": {"width": 3}}
    torch.save(checkpoint | {"planted": Planted(tmp_path / "ran")}, tmp_path / "a.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        ToyTask.load_from_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["hyper_parameters", "module_arguments"])
def test_code_that_a_checkpoint_names_is_not_imported(key: str, tmp_path: Path) -> None:
    """From the user it may be: here it names no module that there is."""
    task = A2C(game="catch")
    parts = {"state_dict": task.state_dict(), key: {"game": "planted:Game-v0"}}
    torch.save({**parts, "pytorch-lightning_version": "2.6.6"}, tmp_path / "a.ckpt")
    told = r"^game='planted:Game-v0': names code to import, which a checkpoint may not; pass game='planted"
    for file in (tmp_path / "a.ckpt", io.BytesIO((tmp_path / "a.ckpt").read_bytes())):
        with pytest.raises(UserError, match=told):
            A2C.load_from_checkpoint(file)
        assert A2C.load_from_checkpoint(tmp_path / "a.ckpt", game="catch").game == "catch"
    with pytest.raises(ImportError, match="No module named 'planted'"):
        A2C.load_from_checkpoint(tmp_path / "a.ckpt", game="planted:Game-v0")


def test_no_class_that_a_checkpoint_names_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning allows the command line's way to create a task, which would also create classes in its arguments."""
    (tmp_path / "planted.py").write_text("raise SystemExit('the planted module was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = {"game": "CartPole-v1", "arguments": {"a": {"class_path": "planted.Class"}}}
    saved = {"hyper_parameters": {**arguments, "_instantiator": "lightning.pytorch.cli.instantiate_module"}}
    torch.save({"state_dict": {}, **saved, "pytorch-lightning_version": "2.6.6"}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"model.arguments={'a': {'class_path': 'planted.Class'}}: "):
        A2C.load_from_checkpoint(tmp_path / "a.ckpt")


def test_the_error_names_the_class_of_a_checkpoint_that_another_class_cannot_load(tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])
    checkpoint = tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "last.ckpt"
    message = f"{checkpoint}: a checkpoint of tests.toy.tasks.ToyTask, which ToyHeatmap cannot load: "
    with pytest.raises(UserError, match=re.escape(message)):
        ToyHeatmap.load_from_checkpoint(checkpoint)
    with pytest.raises(RuntimeError, match="size mismatch"):
        ToyTask.load_from_checkpoint(checkpoint, width=3)


def test_a_checkpoint_of_any_task_opens_without_the_weights_that_its_training_started_from() -> None:
    arguments: dict[type[Task], dict[str, Any]] = {
        CoordinateClassification: {},
        FasterRCNN: {"num_classes": 2},
        GAN: {"image_size": 16, "width": 4},
        Classifier: {"network": "squeezenet1_1", "num_classes": 2, "where": "first"},
        A2C: {"game": "catch"},
    }
    for kind, own in arguments.items():

        class Started(kind):  # type: ignore[valid-type, misc]
            initial_weight_args = kind.initial_weight_args | {"start"}

            def __init__(self, start: str | None = None, **kwargs: Any) -> None:  # noqa: ANN401
                super().__init__(**kwargs)

        assert "start" not in Started(start="start.pt", **own).hparams, kind

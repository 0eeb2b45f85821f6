"""What all tasks share: training means, random numbers, and settings changed on a resume."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from coordconv_apps.runs.summary import read_summary
from coordconv_apps.training.resumed_settings import apply_changed_settings, optimizer_settings
from coordconv_apps.training.schedules import lr_factor
from coordconv_apps.training.task import Task
from coordconv_apps.utils.random_state import random_state, restore_random_state
from tests.toy.__main__ import main
from tests.toy.tasks import ToyTask

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.randn()), torch.rand(()).item()


def test_random_state() -> None:
    draw()  # leaves a gaussian in reserve
    file = io.BytesIO()
    torch.save(random_state(CPU), file)
    expected = [draw() for _ in range(3)]
    draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True), CPU)
    assert [draw() for _ in range(3)] == expected


Make = Callable[[float, int], tuple[Optimizer, LRScheduler | None]]


def trainer_of(make: Make, lr: float, steps: int) -> Any:  # noqa: ANN401  # what resume needs of a trainer
    optimizer, scheduler = make(lr, steps)
    configs = [] if scheduler is None else [LRSchedulerConfig(scheduler)]
    return SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=configs)


def step(trainer: Any) -> float:  # noqa: ANN401  # as above
    (optimizer,) = trainer.optimizers
    optimizer.step()
    for config in trainer.lr_scheduler_configs:
        config.scheduler.step()
    return float(optimizer.param_groups[0]["lr"])


def resumed(make: Make, old: tuple[float, int], new: tuple[float, int], at: int) -> tuple[Any, float]:
    """A trainer with the settings ``new``, resumed after ``at`` steps with ``old``; and its rate before a change."""
    trainer = trainer_of(make, *old)
    settings = optimizer_settings(trainer)
    for _ in range(at):
        step(trainer)
    fresh = trainer_of(make, *new)
    fresh_settings = optimizer_settings(fresh)
    fresh.optimizers[0].load_state_dict(trainer.optimizers[0].state_dict())
    for config, before in zip(fresh.lr_scheduler_configs, trainer.lr_scheduler_configs, strict=True):
        config.scheduler.load_state_dict(before.scheduler.state_dict())
    rate = fresh.optimizers[0].param_groups[0]["lr"]
    apply_changed_settings(fresh, settings, fresh_settings)
    return fresh, rate


def parameters() -> list[Tensor]:
    return [torch.nn.Parameter(torch.zeros(2))]


def no_schedule(lr: float, steps: int) -> tuple[Optimizer, None]:
    return Adam(parameters(), lr=lr, weight_decay=lr / 10), None


def lambda_schedule(lr: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = SGD(parameters(), lr=lr)
    return optimizer, LambdaLR(optimizer, lambda t: max(0.0, 1 - t / steps))


def warm_up(lr: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = Adam(parameters(), lr=lr, weight_decay=lr / 10, fused=True)
    return optimizer, LambdaLR(optimizer, lr_factor("cosine", steps, warmup=0.2))


@pytest.mark.parametrize("make", [no_schedule, lambda_schedule, warm_up])
def test_unchanged_settings_change_nothing(make: Make) -> None:
    trainer, rate = resumed(make, (0.1, 10), (0.1, 10), at=4)
    whole = trainer_of(make, 0.1, 10)
    rates = [step(whole) for _ in range(9)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == rate == rates[3]
    assert [step(trainer) for _ in range(5)] == rates[4:]


@pytest.mark.parametrize("make", [no_schedule, lambda_schedule, warm_up])
@pytest.mark.parametrize("new", [(0.3, 10), (0.3, 12)])
def test_changed_rates_are_those_of_a_run_with_the_new_settings(make: Make, new: tuple[float, int]) -> None:
    trainer, _ = resumed(make, (0.1, 10), new, at=4)
    whole = trainer_of(make, *new)
    rates = [step(whole) for _ in range(9)]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rates[3], rel=1e-6)
    assert [step(trainer) for _ in range(5)] == pytest.approx(rates[4:], rel=1e-6)


def test_weight_decay_changes_and_the_optimizers_memory_stays() -> None:
    trainer, _ = resumed(no_schedule, (0.1, 10), (0.4, 10), at=3)
    (group,) = trainer.optimizers[0].param_groups
    assert group["lr"] == 0.4
    assert group["weight_decay"] == pytest.approx(0.04)


def test_training_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        task._trainer = SimpleNamespace(strategy=strategy)  # type: ignore[assignment]  # nothing else is asked of it
        task.on_train_epoch_end()
        assert values["train/loss"] == (2 * 1.0 + 4.0 + 8.0) / 4
        assert task._train_sums == {}, "the next epoch starts anew"


def _watched(seen: list[tuple[float, int]]) -> Callable[[Task, dict[str, Tensor], int], None]:
    log_train = Task.log_train

    def watched(task: Task, values: dict[str, Tensor], batch_size: int) -> None:
        seen.append((values["train/loss"].item(), batch_size))
        log_train(task, values, batch_size)

    return watched


def test_defaults() -> None:
    task = Task("xy")
    assert task.coords == "xy"
    assert task.parameter_count() == 0
    toy = ToyTask(width=3)
    frozen = next(iter(toy.parameters())).requires_grad_(False)
    assert toy.parameter_count() == sum(p.numel() for p in toy.parameters()) - frozen.numel()
    for hook in (task.export_module, task.example_inputs):
        with pytest.raises(ValueError, match="Task has no exportable network"):
            hook()


def test_lightning_loads_the_task_from_its_checkpoint(tmp_path: Path) -> None:
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", "--model.coords=xyr", "--model.width=3"])
    path = tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "best.ckpt"
    task = ToyTask.load_from_checkpoint(path)
    assert task.coords == "xyr"
    saved = torch.load(path, weights_only=True)["state_dict"]
    for name, value in task.state_dict().items():
        assert torch.equal(value, saved[name])

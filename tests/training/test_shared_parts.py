"""The parts that tasks share: one evaluation step, parameter groups, schedules by step, access to the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torchmetrics import MeanMetric

from coordconv_apps import CoordConv2d
from coordconv_apps.training.evaluation import EvaluatedTask, Stage
from coordconv_apps.training.optimizers import can_fuse, parameter_groups, schedule_by_step
from coordconv_apps.training.trainer_access import attached_datamodule, log_interval
from coordconv_apps.utils.warning_filters import filter_warnings
from tests.toy.data import ToyBatch, ToyData

if TYPE_CHECKING:
    from collections.abc import Mapping


class MeanTask(EvaluatedTask[ToyBatch, MeanMetric]):
    """Average the positions of the dots."""

    monitor: ClassVar[str] = "val/mean"

    def __init__(self) -> None:
        super().__init__()
        self.val_metrics, self.test_metrics = MeanMetric(), MeanMetric()

    def evaluation_step(self, batch: ToyBatch, metrics: MeanMetric, dataloader_idx: int) -> None:
        metrics.update(batch[1])

    def evaluation_metrics(self, metrics: MeanMetric, stage: Stage) -> Mapping[str, Tensor]:
        value = metrics.compute()
        metrics.reset()
        return {"mean": value}


def test_validation_and_test_log_the_same_metrics() -> None:
    data, task = ToyData(), MeanTask()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    for _ in range(2):  # the second finds the metrics reset
        with filter_warnings():
            (validated,) = trainer.validate(task, data, verbose=False)
            (tested,) = trainer.test(task, data, verbose=False)
        expected = data.val_set.tensors[1].mean().item()
        assert validated == {"val/mean": pytest.approx(expected)}
        assert tested == {"test/mean": pytest.approx(expected)}
    assert attached_datamodule(trainer, ToyData) is data
    assert log_interval(trainer) == 50
    with pytest.raises(TypeError, match="data module of class ToyData, got None"):
        attached_datamodule(Trainer(accelerator="cpu", logger=False), ToyData)
    assert isinstance(attached_datamodule(trainer, LightningDataModule), ToyData)


def test_which_parameters_decay() -> None:
    model = nn.Sequential(CoordConv2d(2, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm([3, 4, 4]), nn.Linear(4, 2))
    decayed, others = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == ["0.weight", "0.coord_weight", "3.weight"]
    assert len(others["params"]) == 6
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_a_schedule_by_step() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    configuration = schedule_by_step(optimizer, lambda step: 0.5**step)
    scheduler = configuration["lr_scheduler"]["scheduler"]  # type: ignore[index]  # Lightning's union of types
    assert configuration["lr_scheduler"]["interval"] == "step"  # type: ignore[index]
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(("clip", "fused"), [(None, True), (0.0, True), (1.0, False)])
def test_no_fused_optimizer_with_clipped_gradients(clip: float | None, fused: bool) -> None:
    task = MeanTask()
    task.trainer = Trainer(accelerator="cpu", logger=False, gradient_clip_val=clip)
    assert can_fuse(task) == fused

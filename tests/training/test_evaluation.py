"""One evaluation step for validation and test, and access to the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torchmetrics import MeanMetric

from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.training.evaluation import EvaluatedTask
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

    def evaluation_metrics(self, metrics: MeanMetric, split: EvaluationSplit) -> Mapping[str, Tensor]:
        return {"mean": metrics.compute()}


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
    assert task.val_metrics.weight == task.test_metrics.weight == 0, "reset at the end, too: a training validates often"
    assert attached_datamodule(trainer, ToyData) is data
    assert log_interval(trainer) == 50
    with pytest.raises(TypeError, match="data module of class ToyData, got None"):
        attached_datamodule(Trainer(accelerator="cpu", logger=False), ToyData)
    assert isinstance(attached_datamodule(trainer, LightningDataModule), ToyData)

"""Base task whose validation and test share one step, each with a metric object of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor, nn
from torchmetrics import Metric

from coordconv_apps.data.splits import EvaluationSplit
from coordconv_apps.training.task import Task

BatchT = TypeVar("BatchT")
MetricsT = TypeVar("MetricsT", bound=nn.Module)


class EvaluatedTask(Task, ABC, Generic[BatchT, MetricsT]):
    """Base of tasks whose validation and test differ in their data only.

    A subclass creates ``val_metrics`` and ``test_metrics``, and has two methods: `evaluation_step` adds a batch to one
    of them, `evaluation_metrics` returns its values.
    """

    val_metrics: MetricsT
    test_metrics: MetricsT

    @abstractmethod
    def evaluation_step(self, batch: BatchT, metrics: MetricsT, dataloader_idx: int) -> None:
        """Add a batch of the data set ``dataloader_idx`` to ``metrics``."""

    @abstractmethod
    def evaluation_metrics(self, metrics: MetricsT, split: EvaluationSplit) -> Mapping[str, Tensor]:
        """Compute ``metrics`` over all processes, and return scalars by name, without the split."""

    def log_evaluation(self, values: Mapping[str, Tensor], split: EvaluationSplit) -> None:
        """Log values that are equal on all processes as ``<split>/<name>``, and reset the metrics of the split."""
        # The mean of equal numbers changes nothing, and tells Lightning that the values are synchronised.
        self.log_dict({f"{split}/{name}": value.to(self.device) for name, value in values.items()}, sync_dist=True)
        for metric in (self.val_metrics if split == "val" else self.test_metrics).modules():
            if isinstance(metric, Metric):
                metric.reset()

    def validation_step(self, batch: BatchT, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the validation metrics."""
        self.evaluation_step(batch, self.val_metrics, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.log_evaluation(self.evaluation_metrics(self.val_metrics, "val"), "val")
        self.count_bad_images()

    def test_step(self, batch: BatchT, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the test metrics."""
        self.evaluation_step(batch, self.test_metrics, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_evaluation(self.evaluation_metrics(self.test_metrics, "test"), "test")
        self.count_bad_images()

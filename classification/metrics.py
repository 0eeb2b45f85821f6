"""Accuracy, calibration error, confusion matrix and worst examples of a classifier, exact over all processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from coordconv_apps.utils.argument_checks import check_at_least

BINS = 15
"""Confidence bins of the calibration error, as in Guo et al. (2017)."""

TOP_K = 5
"""Number of most probable classes that count for ``accuracy_top5``."""

_FIELDS = 5  # of a row of the worst examples: bits of the loss, index, label, predicted class, bits of the probability


class WorstExample(NamedTuple):
    """An image with a large loss.

    Attributes:
        image_index: Index of the image in its split, from 0.
        label: Its class, from 0.
        predicted: The most probable class, from 0.
        probability: Probability of the predicted class, in [0, 1].
        loss: Cross-entropy; the probability of the label is ``exp(-loss)``.
    """

    image_index: int
    label: int
    predicted: int
    probability: float
    loss: float


class ClassificationReport(NamedTuple):
    """The confusion matrix and the worst examples of an evaluation, over all processes.

    Attributes:
        confusion: int64 ``(C, C)`` on the CPU: number of images by label (row) and predicted class (column).
        worst: The examples with the largest loss, in descending order.
    """

    confusion: Tensor
    worst: list[WorstExample]

    @property
    def class_accuracies(self) -> Tensor:
        """float32 ``(C,)``: the accuracy of each class, in [0, 1]; NaN for a class without images."""
        return self.confusion.diagonal().float() / self.confusion.sum(1)


class ClassificationMetrics(Metric):
    """All metrics of an evaluation.

    - ``accuracy``: fraction of images whose class is the most probable one.
    - ``accuracy_top5``: fraction of images whose class is among the five most probable; only with more than five
      classes.
    - ``class_accuracy``: mean of the accuracies of the classes, without classes that have no images.
    - ``calibration_error``: expected calibration error in [0, 1], with 15 bins of equal width (Guo et al., 2017,
      equation 3).
    - ``loss``: mean cross-entropy in nats, without label smoothing.

    The size of the state does not depend on the number of images, so processes may have different numbers of them.

    Args:
        num_classes: C, the number of classes.
        worst: How many of the worst examples to keep.

    Attributes:
        report: The confusion matrix and the worst examples of the last `compute`, on every process; None before.
            `reset` keeps it.

    >>> metrics = ClassificationMetrics(num_classes=2)
    >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    >>> metrics.update(logits, labels=torch.tensor([0, 0, 1, 1]), indices=torch.arange(4))
    >>> metrics.compute()["accuracy"]
    tensor(0.7500)
    >>> metrics.report.confusion
    tensor([[2, 0],
            [1, 1]])
    """

    is_differentiable = False
    full_state_update = False

    confusion: Tensor
    top_hits: Tensor
    bin_hits: Tensor
    bin_confidences: Tensor
    losses: Tensor
    worst_rows: Tensor

    def __init__(self, num_classes: int, worst: int = 24) -> None:
        super().__init__()
        check_at_least(2, num_classes=num_classes)
        check_at_least(1, worst=worst)
        self.num_classes = num_classes
        self.report: ClassificationReport | None = None
        for name, shape in {"confusion": (num_classes, num_classes), "top_hits": (), "bin_hits": (BINS,)}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        for name, shape in {"bin_confidences": (BINS,), "losses": ()}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float32), dist_reduce_fx="sum")
        # A loss of -1 marks a row that no image has taken.
        self.add_state("worst_rows", torch.full((worst, _FIELDS), -1, dtype=torch.int64), dist_reduce_fx=_worst_of_all)

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Add a batch: logits ``(B, C)``, labels from 0 to C - 1, and indices of the images in their split.

        Raises:
            ValueError: The shapes do not match.
        """
        shape = (len(labels), self.num_classes)
        if logits.shape != shape:
            raise ValueError(f"logits.shape={tuple(logits.shape)}: must be {shape}, (images, classes)")
        if labels.shape != indices.shape:
            raise ValueError(f"indices.shape={tuple(indices.shape)}: must be that of labels, {tuple(labels.shape)}")
        logits = logits.detach().float()
        predicted = logits.argmax(1)  # not of probabilities: different logits may round to the same
        confidences = logits.softmax(1).amax(1)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self.confusion.view(-1).index_add_(0, labels * self.num_classes + predicted, torch.ones_like(labels))
        if self.num_classes > TOP_K:
            self.top_hits += (logits.topk(TOP_K, dim=1).indices == labels.unsqueeze(1)).sum()
        # Bins exclude their lower bound.
        inner = torch.linspace(0, 1, BINS + 1, dtype=torch.float32, device=confidences.device)[1:-1]
        bins = torch.bucketize(confidences, inner)
        self.bin_confidences.index_add_(0, bins, confidences)
        self.bin_hits.index_add_(0, bins, (predicted == labels).long())
        self.losses += losses.sum()
        rows = torch.stack([_bits(losses), indices, labels, predicted, _bits(confidences)], dim=1)
        self.worst_rows = _worst(torch.cat([self.worst_rows, rows]), len(self.worst_rows))

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, scalars, over all processes; NaN before the first image."""
        count = self.confusion.sum()
        self.report = ClassificationReport(self.confusion.cpu().clone(), _examples(self.worst_rows))
        metrics = {"accuracy": self.confusion.diagonal().sum() / count}
        if self.num_classes > TOP_K:
            metrics["accuracy_top5"] = self.top_hits / count
        # The gap of a bin times its fraction of the images is the difference of its sums, divided by all images.
        gaps = (self.bin_confidences - self.bin_hits).abs().sum()
        return metrics | {
            "class_accuracy": (self.confusion.diagonal().float() / self.confusion.sum(1)).nanmean(),
            "calibration_error": gaps / count,
            "loss": self.losses / count,
        }


def _bits(values: Tensor) -> Tensor:
    """Return non-negative floats as int64 of the same order, so that one exact state holds them beside indices.

    NaN comes after infinity: it is the worst loss of all.
    """
    return values.abs().view(torch.int32).long()  # abs: 0 may have a sign


def _worst(rows: Tensor, number: int) -> Tensor:
    """Return the rows with the largest loss in descending order; of equal ones those with the smallest index."""
    rows = rows[rows[:, 1].argsort(stable=True)]
    return rows[rows[:, 0].argsort(stable=True, descending=True)][:number]


def _worst_of_all(rows: Tensor) -> Tensor:
    """Reduce rows ``(processes, worst, fields)`` to the worst ``(worst, fields)``."""
    return _worst(rows.flatten(0, 1), rows.shape[1])


def _examples(rows: Tensor) -> list[WorstExample]:
    rows = rows[rows[:, 0] >= 0].cpu()
    losses, probabilities = (bits.int().view(torch.float32).tolist() for bits in (rows[:, 0], rows[:, 4]))
    columns = (column.tolist() for column in rows[:, 1:4].unbind(1))
    return [WorstExample(*fields) for fields in zip(*columns, probabilities, losses, strict=True)]

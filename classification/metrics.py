"""Figures of an evaluation: hits, calibration, confusion and the worst examples. All add up over processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BINS = 15
"""Bins of confidence of the calibration error, as in Guo et al. (2017)."""

TOP = 5
"""A class among so many most probable ones is a hit for ``accuracy_top5``."""

_FIELDS = 5  # of a worst example: bits of its loss, number, label, predicted class, bits of its probability


class WorstExample(NamedTuple):
    """An image that the network is wrong about.

    Attributes:
        number: Of the image in its part, from 0.
        label: Its class, from 0.
        predicted: The most probable class, from 0.
        probability: Of the predicted class, in [0, 1].
        loss: Cross-entropy: the probability of the label is ``exp(-loss)``.
    """

    number: int
    label: int
    predicted: int
    probability: float
    loss: float


class Report(NamedTuple):
    """What pictures are drawn from: of the images on all processes.

    Attributes:
        confusion: int64 ``(C, C)`` on the CPU: images by label (row) and predicted class (column).
        worst: The examples with the largest loss, the largest first.
    """

    confusion: Tensor
    worst: list[WorstExample]

    @property
    def class_accuracies(self) -> Tensor:
        """float32 ``(C,)``, in [0, 1]: the share of hits of each class; not a number for a class without images."""
        return _class_accuracies(self.confusion)


class ClassificationMetrics(Metric):
    """All figures of an evaluation.

    - ``accuracy``: share of images whose class is the most probable one, in [0, 1].
    - ``accuracy_top5``: share of images whose class is among the five most probable, if there are more than five.
    - ``class_accuracy``: mean over classes of each one's accuracy; classes without images do not count.
    - ``calibration_error``: how far confidence is from accuracy, in [0, 1]: the expected calibration error with 15
      bins of equal width (Guo et al., 2017, equation 3).
    - ``loss``: mean cross-entropy, with the natural logarithm and without label smoothing.

    The state has one size whatever the number of images, so processes may hold different numbers of them, or none.

    Args:
        num_classes: C, the number of classes.
        worst: How many of the worst examples to keep.

    Attributes:
        report: The confusion matrix and the worst examples that `compute` saw last, on every process; None before.
            `reset` leaves it.

    Raises:
        ValueError: An argument is out of its range.
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
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: must be an integer of at least 2")
        if worst < 1:
            raise ValueError(f"worst={worst}: must be an integer of at least 1")
        self.num_classes = num_classes
        self.report: Report | None = None
        integers = {"confusion": (num_classes, num_classes), "top_hits": (), "bin_hits": (BINS,)}
        for name, shape in integers.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        for name, shape in {"bin_confidences": (BINS,), "losses": ()}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float32), dist_reduce_fx="sum")
        # A loss of -1 marks a row that no image has taken.
        rows = torch.full((worst, _FIELDS), -1, dtype=torch.int64)
        self.add_state("worst_rows", rows, dist_reduce_fx=_worst_of_all)

    def update(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Adds images.

        Args:
            logits: ``(B, C)``, of any floating dtype; B from 0.
            labels: int64 ``(B,)``, from 0 to C - 1.
            indices: int64 ``(B,)``: the number of each image in its part.

        Raises:
            ValueError: The shapes do not go together.
        """
        shape = (len(labels), self.num_classes)
        if logits.shape != shape:
            raise ValueError(f"logits.shape={tuple(logits.shape)}: must be {shape}, images and classes")
        if labels.shape != indices.shape:
            raise ValueError(f"indices.shape={tuple(indices.shape)}: must be that of labels, {tuple(labels.shape)}")
        logits = logits.detach().float()
        predicted = logits.argmax(1)  # not of probabilities: different logits may round to the same
        confidences = logits.softmax(1).amax(1)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self.confusion.view(-1).index_add_(0, labels * self.num_classes + predicted, torch.ones_like(labels))
        if self.num_classes > TOP:
            self.top_hits += (logits.topk(TOP, dim=1).indices == labels.unsqueeze(1)).sum()
        self._add_confidences(confidences, predicted == labels)
        self.losses += losses.sum()
        rows = torch.stack([_bits(losses), indices, labels, predicted, _bits(confidences)], dim=1)
        self.worst_rows = _worst(torch.cat([self.worst_rows, rows]), len(self.worst_rows))

    def _add_confidences(self, confidences: Tensor, hits: Tensor) -> None:
        """Adds confidences ``(B,)`` and whether each is of a hit to their bins, which are open below."""
        inner = torch.linspace(0, 1, BINS + 1, dtype=torch.float32, device=confidences.device)[1:-1]
        bins = torch.bucketize(confidences, inner)
        self.bin_confidences.index_add_(0, bins, confidences)
        self.bin_hits.index_add_(0, bins, hits.long())

    def compute(self) -> dict[str, Tensor]:
        """The figures by name, scalars, of the images on all processes; not a number before the first image."""
        count = self.confusion.sum()
        accuracies = _class_accuracies(self.confusion)
        self.report = Report(self.confusion.cpu().clone(), _examples(self.worst_rows))
        figures = {"accuracy": self.confusion.diagonal().sum() / count}
        if self.num_classes > TOP:
            figures["accuracy_top5"] = self.top_hits / count
        # A bin's gap times its share of images is the difference of its sums, divided by the number of images.
        gaps = (self.bin_confidences - self.bin_hits).abs().sum()
        return figures | {
            "class_accuracy": accuracies.nanmean(),
            "calibration_error": gaps / count,
            "loss": self.losses / count,
        }

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> ClassificationMetrics:
        """Moves to a device; sums stay float32 where a network becomes bfloat16, which counts to 256 at most."""
        super()._apply(fn, exclude_state)
        for name in ("bin_confidences", "losses"):
            setattr(self, name, getattr(self, name).float())
            self._defaults[name] = self._defaults[name].float()  # type: ignore[union-attr]  # a tensor
        return self


def _class_accuracies(confusion: Tensor) -> Tensor:
    return confusion.diagonal().float() / confusion.sum(1)


def _bits(values: Tensor) -> Tensor:
    """Numbers from 0 on as int64 that are ordered as they are, so that they go with indices into one exact state.

    Not a number comes after infinity: it is the worst loss of all.
    """
    return values.abs().view(torch.int32).long()  # abs: 0 may have a sign


def _numbers(bits: Tensor) -> list[float]:
    return bits.int().view(torch.float32).tolist()


def _worst(rows: Tensor, number: int) -> Tensor:
    """The rows with the largest loss, the largest first; of equal ones those of the first indices."""
    rows = rows[rows[:, 1].argsort(stable=True)]
    return rows[rows[:, 0].argsort(stable=True, descending=True)][:number]


def _worst_of_all(rows: Tensor) -> Tensor:
    """The worst rows ``(worst, fields)`` of all processes' ``(processes, worst, fields)``."""
    return _worst(rows.flatten(0, 1), rows.shape[1])


def _examples(rows: Tensor) -> list[WorstExample]:
    rows = rows[rows[:, 0] >= 0].cpu()
    losses, probabilities = _numbers(rows[:, 0]), _numbers(rows[:, 4])
    columns = (column.tolist() for column in rows[:, 1:4].unbind(1))
    return [WorstExample(*fields) for fields in zip(*columns, probabilities, losses, strict=True)]

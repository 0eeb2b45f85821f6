"""Figures of an evaluation against scikit-learn and formulas, and their sum over processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    recall_score,
    top_k_accuracy_score,
)
from torch import Tensor

from classification.metrics import ClassificationMetrics, ClassificationReport

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES, IMAGES = 7, 200
NAMES = {"accuracy", "accuracy_top5", "class_accuracy", "calibration_error", "loss"}


def make_logits(classes: int = CLASSES, images: int = IMAGES) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that are right more often than not, labels, and indices in no order."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = 2 * torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), labels] += 2.5
    return logits, labels, torch.randperm(images, generator=generator)


def updated(batches: Sequence[tuple[Tensor, Tensor, Tensor]], worst: int = 24) -> ClassificationMetrics:
    metric = ClassificationMetrics(batches[0][0].shape[1], worst)
    for batch in batches:
        metric.update(*batch)
    return metric


def values_of(metric: ClassificationMetrics) -> tuple[dict[str, float], ClassificationReport]:
    values = {name: float(value) for name, value in metric.compute().items()}
    assert metric.report is not None
    return values, metric.report


def in_batches(*sizes: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    assert sum(sizes) == IMAGES
    logits, labels, indices = (part.split(list(sizes)) for part in make_logits())
    return list(zip(logits, labels, indices, strict=True))


def over_processes(shards: Sequence[Sequence[tuple[Tensor, Tensor, Tensor]]]) -> list[ClassificationMetrics]:
    """A metric for each process, each of which gathers the states of all, as over a network."""
    metrics = [ClassificationMetrics(CLASSES) for _ in shards]
    for metric, batches in zip(metrics, shards, strict=True):
        for batch in batches:
            metric.update(*batch)

    def gather_for(own: ClassificationMetrics) -> None:
        def gather(state: Tensor, group: object = None) -> list[Tensor]:
            name = next(name for name in own._reductions if getattr(own, name) is state)
            states = [getattr(metric, name).clone() for metric in metrics]
            assert len({(one.shape, one.dtype) for one in states}) == 1  # else one process would wait for ever
            return states

        own.dist_sync_fn = gather
        own.distributed_available_fn = lambda: True

    for metric in metrics:
        gather_for(metric)
    return metrics


# ------------------------------------------------------------------ values


def guo_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Equation 3 of Guo et al. (2017), bin by bin; bin m is ((m - 1) / M, m / M]."""
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for m in range(1, bins + 1):
        inside = ((m - 1) / bins < confidence) & (confidence <= m / bins)
        if inside.any():
            error += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return error


def test_metrics_equal_those_of_scikit_learn() -> None:
    logits, labels, _ = make_logits()
    probabilities = logits.double().softmax(1).numpy()
    true, found = labels.numpy(), logits.argmax(1).numpy()
    values, report = values_of(updated(in_batches(64, 64, 72)))
    assert set(values) == NAMES
    assert values["accuracy"] == pytest.approx((true == found).mean(), abs=1e-7)
    assert values["accuracy_top5"] == pytest.approx(top_k_accuracy_score(true, probabilities, k=5), abs=1e-7)
    assert values["class_accuracy"] == pytest.approx(balanced_accuracy_score(true, found), abs=1e-6)
    assert values["calibration_error"] == pytest.approx(guo_error(probabilities, true), abs=1e-6)
    assert values["loss"] == pytest.approx(log_loss(true, probabilities), rel=1e-6)
    assert values["accuracy"] < values["accuracy_top5"] < 1
    assert report.confusion.dtype == torch.int64
    np.testing.assert_array_equal(report.confusion.numpy(), confusion_matrix(true, found))
    np.testing.assert_allclose(report.class_accuracies.numpy(), recall_score(true, found, average=None), rtol=1e-6)


@pytest.mark.parametrize(("classes", "is_there"), [(2, False), (5, False), (6, True)])
def test_top_5_is_there_with_more_than_five_classes(classes: int, is_there: bool) -> None:
    values, _ = values_of(updated([make_logits(classes, 20)]))
    assert ("accuracy_top5" in values) == is_there


def test_classes_without_images_do_not_count() -> None:
    logits = torch.eye(4)[torch.tensor([0, 0, 2, 1])]
    values, report = values_of(updated([(logits, torch.tensor([0, 0, 2, 2]), torch.arange(4))]))
    assert values["class_accuracy"] == pytest.approx(0.75)
    np.testing.assert_array_equal(report.class_accuracies.numpy(), [1, np.nan, 0.5, np.nan])


def test_worst_examples_are_those_of_the_largest_loss() -> None:
    logits, labels, indices = make_logits()
    losses = -logits.double().log_softmax(1)[torch.arange(IMAGES), labels]
    probabilities = logits.double().softmax(1)
    _, report = values_of(updated(in_batches(3, 97, 0, 100), worst=9))
    assert len(report.worst) == 9
    for place, example in zip(losses.argsort(descending=True).tolist(), report.worst, strict=False):
        assert example[:3] == tuple(int(part[place]) for part in (indices, labels, logits.argmax(1)))
        assert example.probability == pytest.approx(float(probabilities[place].max()), rel=1e-5)
        assert example.loss == pytest.approx(float(losses[place]), rel=1e-5)


def test_large_indices_and_equal_losses_stay_exact() -> None:
    first = 2**40
    metric = updated([(torch.zeros(6, 3), torch.zeros(6).long(), first + torch.tensor([5, 3, 1, 4, 2, 0]))], worst=4)
    _, report = values_of(metric)
    assert [example.image_index for example in report.worst] == [first, first + 1, first + 2, first + 3]
    assert report.worst[0][1:] == pytest.approx((0, 0, 1 / 3, np.log(3)))


def test_there_are_as_many_worst_examples_as_images_at_most() -> None:
    # An image that is certain and right has the loss 0, with either sign.
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]])
    _, report = values_of(updated([(logits, torch.tensor([0, 1]), torch.tensor([8, 9]))]))
    assert [(example.image_index, example.loss > 0) for example in report.worst] == [(9, True), (8, False)]


def test_nan_logits_give_nan_metrics() -> None:
    logits = torch.tensor([[0.0, 9.0], [torch.nan, 0.0], [3.0, 0.0]])
    values, report = values_of(updated([(logits, torch.tensor([0, 1, 0]), torch.arange(3))]))
    assert np.isnan(values["loss"])
    assert np.isnan(values["calibration_error"])
    assert [example.image_index for example in report.worst] == [1, 0, 2]


# ------------------------------------------------------------------ batches and processes


def test_metrics_do_not_depend_on_the_batches() -> None:
    (whole, whole_report), (parts, parts_report) = (
        values_of(updated(in_batches(*sizes))) for sizes in ((IMAGES,), (1, 0, 63, 64, 0, 72))
    )
    assert parts == pytest.approx(whole, rel=1e-6)
    assert torch.equal(parts_report.confusion, whole_report.confusion)
    assert [example[:3] for example in parts_report.worst] == [example[:3] for example in whole_report.worst]


def test_metrics_of_processes_with_different_shards_are_those_of_one() -> None:
    one, one_report = values_of(updated(in_batches(IMAGES)))
    batches = in_batches(50, 90, 0, 60)
    empty = [batches[2]]
    for metric in over_processes([batches[:2], empty, batches[3:]]):
        values, report = values_of(metric)
        assert values == pytest.approx(one, rel=1e-6)
        assert torch.equal(report.confusion, one_report.confusion)
        assert [example[:3] for example in report.worst] == [example[:3] for example in one_report.worst]
        assert len(report.worst) == 24


def test_metrics_of_no_images_are_nan() -> None:
    metric = ClassificationMetrics(CLASSES)
    metric.update(torch.zeros(0, CLASSES), torch.zeros(0).long(), torch.zeros(0).long())
    values, report = values_of(metric)
    assert set(values) == NAMES
    assert np.isnan(list(values.values())).all()
    assert report.worst == []


def test_reset_forgets_all_but_the_report() -> None:
    metric = updated(in_batches(IMAGES))
    _, report = values_of(metric)
    metric.reset()
    assert metric.report is report
    assert report.confusion.sum() == IMAGES
    metric.update(torch.eye(CLASSES)[:1], torch.tensor([0]), torch.tensor([3]))
    values, report = values_of(metric)
    assert values["accuracy"] == 1
    assert [example.image_index for example in report.worst] == [3]


def test_logits_of_bfloat16_are_taken() -> None:
    logits, labels, indices = make_logits()
    values, _ = values_of(updated([(logits.bfloat16(), labels, indices)]))
    rounded, _ = values_of(updated([(logits.bfloat16().double(), labels, indices)]))
    assert values == rounded


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"num_classes=1: must be an integer of at least 2"):
        ClassificationMetrics(1)
    with pytest.raises(ValueError, match=r"worst=0: must be an integer of at least 1"):
        ClassificationMetrics(3, worst=0)
    metric = ClassificationMetrics(3)
    with pytest.raises(ValueError, match=r"logits.shape=\(2, 4\): must be \(2, 3\)"):
        metric.update(torch.zeros(2, 4), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match=r"indices.shape=\(1,\): must be that of labels, \(2,\)"):
        metric.update(torch.zeros(2, 3), torch.zeros(2).long(), torch.arange(1))

"""The paper's figures against plain loops, and their sum over batches and processes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from coordconv_apps.coordinates.metrics import PixelAccuracy, PixelIoU, PositionError, SampleMeans
from tests.helpers.metrics import together

Loop = Callable[[Tensor, Tensor], dict[str, float]]
Case = tuple[type[SampleMeans], Loop, Tensor, Tensor]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def loop_hits(logits: Tensor, centers: Tensor) -> dict[str, float]:
    hits, euclidean, manhattan = [], [], []
    for image, ((x, y),) in zip(logits.tolist(), centers.tolist(), strict=True):
        _, row, column = max((value, i, j) for i, values in enumerate(image) for j, value in enumerate(values))
        hits.append(float((column, row) == (x, y)))
        euclidean.append(math.hypot(column - x, row - y))
        manhattan.append(float(abs(column - x) + abs(row - y)))
    return {"accuracy": mean(hits), "euclidean_distance": mean(euclidean), "manhattan_distance": mean(manhattan)}


def loop_errors(positions: Tensor, centers: Tensor) -> dict[str, float]:
    pairs = zip(positions.tolist(), centers.tolist(), strict=True)
    return {"euclidean_distance": mean([math.dist(position, center) for position, (center,) in pairs])}


def loop_overlap(logits: Tensor, images: Tensor) -> dict[str, float]:
    overlaps = []
    for found, true in zip(logits.flatten(1).tolist(), images.flatten(1).tolist(), strict=True):
        chosen = {pixel for pixel, logit in enumerate(found) if 1 / (1 + math.exp(-logit)) > 0.5}
        wanted = {pixel for pixel, value in enumerate(true) if value == 1}
        overlaps.append(len(chosen & wanted) / len(chosen | wanted) if chosen | wanted else 1.0)
    return {"iou": mean(overlaps)}


def cases(count: int = 23) -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randint(7, (count, 1, 2), generator=generator)
    logits = torch.randn(count, 7, 7, generator=generator)
    samples = torch.arange(0, count, 3)
    logits[samples, centers[samples, 0, 1], centers[samples, 0, 0]] = 9.0  # some are hits
    positions = centers[:, 0] + torch.randn(count, 2, generator=generator)
    images = (torch.rand(count, 7, 7, generator=generator) < 0.3).float()
    images[::5] = 0
    logits_of_images = torch.randn(count, 7, 7, generator=generator)
    logits_of_images[::10] = -1  # nothing found where there is nothing
    return [
        (PixelAccuracy, loop_hits, logits, centers),
        (PositionError, loop_errors, positions, centers),
        (PixelIoU, loop_overlap, logits_of_images, images),
    ]


def values(metric: SampleMeans) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case[0].__name__)
def test_metrics_of_all_batches_and_processes_equal_a_loop_over_the_samples(case: Case) -> None:
    kind, loop, outputs, targets = case
    first, second = kind(), kind()
    for metric, start, end in ((first, 0, 10), (first, 10, 11), (second, 11, 11), (second, 11, 23)):
        metric.update(outputs[start:end], targets[start:end])
    expected = loop(outputs, targets)
    assert all(value > 0 for value in expected.values())
    assert values(together(kind(), first, second)) == pytest.approx(expected, rel=1e-5)


def test_x_is_the_column() -> None:
    logits = torch.zeros(1, 6, 6)
    logits[0, 5, 2] = 1  # row 5, column 2
    hits = PixelAccuracy()
    hits.update(logits, torch.tensor([[[2, 5]]]))
    assert values(hits) == {"accuracy": 1, "euclidean_distance": 0, "manhattan_distance": 0}
    hits.reset()
    hits.update(logits, torch.tensor([[[5, 1]]]))
    assert values(hits) == {"accuracy": 0, "euclidean_distance": 5, "manhattan_distance": 7}


def test_iou_of_empty_and_full_images() -> None:
    nothing, everything = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    for logits, images, expected in (
        (-everything, nothing, 1.0),
        (everything, nothing, 0.0),
        (-everything, everything, 0.0),
        (nothing, nothing, 1.0),  # a probability of 0.5 is not above 0.5
        (everything, everything, 1.0),
    ):
        overlap = PixelIoU()
        overlap.update(logits, images)
        assert values(overlap) == {"iou": expected}

"""Overlap metrics against plain loops, their empty cases, and their sum over processes."""

import itertools

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from detection.batches import DetectionTarget
from detection.boxes import Detections, Found
from detection.metrics import AveragePrecision, DetectionMetrics, KeptBoxIoU, TrueBoxIoU
from tests.helpers.metrics import together


def loop_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (area - shared)


def loop_mean_best(of: list[Tensor], among: list[Tensor]) -> float:
    best: list[float] = []
    for boxes, others in zip(of, among, strict=True):
        for box in boxes.tolist():
            best.append(max((loop_iou(box, other) for other in others.tolist()), default=0.0))
    return sum(best) / len(best) if best else 0.0


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 40
    return torch.cat((corner, corner + 2 + torch.rand(count, 2, generator=generator) * 20), dim=1)


def random_images(seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Kept and true boxes of eleven images; every combination of no, one and several boxes among them."""
    generator = torch.Generator().manual_seed(seed)
    counts = [*itertools.product((0, 1, 4), repeat=2), (10, 5), (3, 2)]
    kept, truth = zip(*[(random_boxes(k, generator), random_boxes(t, generator)) for k, t in counts], strict=True)
    return list(kept), list(truth)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_loops_over_boxes(seed: int) -> None:
    kept, truth = random_images(seed)
    by_kept, by_true = KeptBoxIoU(), TrueBoxIoU()
    for start in (0, 4, 8):  # several updates, as in an epoch
        by_kept.update(kept[start : start + 4], truth[start : start + 4])
        by_true.update(kept[start : start + 4], truth[start : start + 4])
    assert float(by_kept.compute()) == pytest.approx(loop_mean_best(kept, truth), abs=1e-6)
    assert float(by_true.compute()) == pytest.approx(loop_mean_best(truth, kept), abs=1e-6)


def test_empty_cases_count_as_documented() -> None:
    none, box = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    cases = {  # kept, true -> mean over kept, mean over true
        "perfect": ([box], [box], 1.0, 1.0),
        "no true box: kept boxes count as 0": ([box, box], [none, box], 0.5, 1.0),
        "no kept box: true boxes count as 0": ([none, box], [box, box], 1.0, 0.5),
        "neither: the image adds nothing": ([none, box], [none, box], 1.0, 1.0),
        "no kept box at all": ([none], [box], 0.0, 0.0),
        "nothing at all": ([none], [none], 0.0, 0.0),
        "no image": ([], [], 0.0, 0.0),
    }
    for name, (kept, truth, over_kept, over_true) in cases.items():
        by_kept, by_true = KeptBoxIoU(), TrueBoxIoU()
        by_kept.update(kept, truth)
        by_true.update(kept, truth)
        assert (float(by_kept.compute()), float(by_true.compute())) == (over_kept, over_true), name


def test_state_of_two_processes_adds_up_to_that_of_one() -> None:
    kept, truth = random_images(7)
    for kind in (KeptBoxIoU, TrueBoxIoU):
        one, first, second = kind(), kind(), kind()
        one.update(kept, truth)
        first.update(kept[0::2], truth[0::2])
        second.update(kept[1::2], truth[1::2])
        torch.testing.assert_close(together(kind(), first, second).compute(), one.compute())


def test_images_must_pair_up() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        KeptBoxIoU().update([torch.zeros(0, 4)], [])


@pytest.mark.parametrize(("limit", "expected"), [(100, 2 / 3), (150, 1.0)])
def test_average_precision_counts_as_many_detections_as_asked_for(limit: int, expected: float) -> None:
    """All of 150 objects are found: COCO's rule counts the 100 with the highest scores."""
    corner = torch.stack(torch.meshgrid(torch.arange(15.0), torch.arange(10.0), indexing="ij"), -1).view(-1, 2) * 20
    boxes, labels = torch.cat((corner, corner + 10), 1), torch.ones(150, dtype=torch.int64)
    metric = AveragePrecision(limit)
    metric.update(
        [{"boxes": boxes, "scores": torch.linspace(1, 0.5, 150), "labels": labels}],
        [{"boxes": boxes, "labels": labels}],
    )
    assert float(metric.compute()["map"]) == pytest.approx(expected, abs=0.01)


def coco_ground_truth(seed: int) -> tuple[list[DetectionTarget], dict[str, object]]:
    """Twelve images with objects of all sizes, crowds among them, as targets and as a data set of COCO's."""
    generator = torch.Generator().manual_seed(seed)
    targets: list[DetectionTarget] = []
    annotations: list[dict[str, object]] = []
    for image in range(12):
        count = image % 5
        corner = torch.rand(count, 2, generator=generator) * 200
        sides = 4 + 140 * torch.rand(count, 2, generator=generator) ** 2
        boxes = torch.cat((corner, corner + sides), dim=1)
        labels = torch.randint(1, 4, (count,), generator=generator)
        crowd = (torch.rand(count, generator=generator) < 0.2).long()
        area = sides.prod(1) * (0.5 + 0.5 * torch.rand(count, generator=generator))
        targets.append({"boxes": boxes, "labels": labels, "area": area, "iscrowd": crowd})
        for box, label, size, is_crowd in zip(torch.cat((corner, sides), 1), labels, area, crowd, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "area": float(size),
                    "iscrowd": int(is_crowd),
                }
            )
    images = [{"id": image, "width": 400, "height": 400} for image in range(12)]
    categories = [{"id": number, "name": str(number)} for number in (1, 2, 3)]
    return targets, {"images": images, "categories": categories, "annotations": annotations}


def imperfect_detections(targets: list[DetectionTarget], seed: int) -> list[Detections]:
    """Moved true boxes, some with a wrong label, and false ones; equal scores among them."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Detections] = []
    for target in targets:
        moved = target["boxes"].repeat(3, 1) + torch.randn(3 * len(target["boxes"]), 4, generator=generator) * 4
        others = random_boxes(5, generator) * 4
        boxes = torch.cat((moved, others))
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = torch.cat((target["labels"].repeat(3), torch.randint(1, 4, (5,), generator=generator)))
        wrong = torch.rand(len(labels), generator=generator) < 0.2
        labels = torch.where(wrong, labels % 3 + 1, labels)
        scores = (torch.rand(len(labels), generator=generator) * 20).round() / 20
        order = scores.argsort(descending=True, stable=True)
        found.append({"boxes": boxes[order], "scores": scores[order], "labels": labels[order]})
    return found


@pytest.mark.parametrize("seed", [0, 2])
def test_coco_metrics_are_those_of_pycocotools(seed: int) -> None:
    targets, data_set = coco_ground_truth(seed)
    found = imperfect_detections(targets, seed + 10)
    assert any(bool(target["iscrowd"].any()) for target in targets)
    metrics = DetectionMetrics(proposals=False, score_threshold=0.5, by_size=True)
    for start in range(0, 12, 5):  # in batches
        metrics.update(Found(found[start : start + 5], None), targets[start : start + 5])
    values = metrics.compute()

    truth = COCO()
    truth.dataset = data_set
    truth.createIndex()
    results = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(score),
        }
        for image, detections in enumerate(found)
        for (x1, y1, x2, y2), label, score in zip(
            detections["boxes"].tolist(), detections["labels"], detections["scores"], strict=True
        )
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = "map map_50 map_75 map_small map_medium map_large mar_1 mar_10 mar_100 mar_small mar_medium mar_large"
    expected = dict(zip(names.split(), evaluation.stats.tolist(), strict=True))
    assert {name: values[name].item() for name in expected} == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected["map"] < 0.8
    assert len({round(value, 3) for value in expected.values()}) > 8, "the figures differ from one another"


def test_crowds_are_no_true_boxes_of_the_iou_metrics() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0]])
    target: DetectionTarget = {"boxes": boxes, "labels": torch.tensor([1, 1]), "iscrowd": torch.tensor([0, 1])}
    found: Detections = {"boxes": boxes[:1], "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
    metrics = DetectionMetrics(proposals=False, score_threshold=0.5)
    metrics.update(Found([found], None), [target])
    assert metrics.compute()["recall_iou"] == 1

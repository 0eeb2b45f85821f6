"""Overlap of predicted with true boxes, as metrics that add up across processes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.distributed import ProcessGroup

    from detection.data import DetectionTarget


class _MeanBestIoU(Metric):
    """Sum of best overlaps and number of boxes they are of."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, boxes: Tensor, others: Tensor) -> None:
        if len(boxes) and len(others):
            self.total += box_iou(boxes.float(), others.float()).amax(1).sum()
        self.count += len(boxes)

    def compute(self) -> Tensor:
        """The mean in [0, 1], a scalar; 0 if there was no box at all."""
        return self.total / self.count.clamp(min=1)


class KeptBoxIoU(_MeanBestIoU):
    """The paper's measure: mean, over kept boxes, of the best IoU with any true box (section 4).

    Every kept box of every image weighs the same. On an image without true boxes each kept box counts as 0:
    there is nothing for it to overlap. An image without kept boxes adds nothing. Without any kept box at all
    the value is 0.
    """

    def update(self, kept: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
        """Add images.

        Args:
            kept: Per image the kept boxes, ``(n, 4)``, ``(x1, y1, x2, y2)``, n from 0.
            truth: Per image the true boxes, ``(m, 4)``, m from 0.
        """
        for boxes, true_boxes in zip(kept, truth, strict=True):
            self._add(boxes, true_boxes)


class TrueBoxIoU(_MeanBestIoU):
    """Recall in terms of overlap: mean, over true boxes, of the best IoU with any kept box.

    Every true box of every image weighs the same. A true box of an image without kept boxes counts as 0. An
    image without true boxes adds nothing. Without any true box at all the value is 0.
    """

    def update(self, kept: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
        """Add images.

        Args:
            kept: Per image the kept boxes, ``(n, 4)``, ``(x1, y1, x2, y2)``, n from 0.
            truth: Per image the true boxes, ``(m, 4)``, m from 0.
        """
        for boxes, true_boxes in zip(kept, truth, strict=True):
            self._add(true_boxes, boxes)


class AveragePrecision(MeanAveragePrecision):
    """COCO's average precision, for processes with different numbers of images too.

    Torchmetrics gathers image by image: where processes hold different numbers of them, one waits for ever.
    """

    def __init__(self) -> None:
        super().__init__(backend="faster_coco_eval")
        self.warn_on_many_detections = False

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] | None = None, process_group: ProcessGroup | None = None
    ) -> None:
        group = process_group or self.process_group
        own = {name: [value.cpu() for value in getattr(self, name)] for name in self._reductions}
        parts: list[dict[str, list[Tensor]]] = [{} for _ in range(distributed.get_world_size(group))]
        distributed.all_gather_object(parts, own, group=group)
        for name in own:
            # Images are dealt out one by one: taken back likewise, they are in the order of a single process.
            rounds = itertools.zip_longest(*(part[name] for part in parts))
            setattr(self, name, [value.to(self.device) for r in rounds for value in r if value is not None])


class DetectionMetrics(nn.Module):
    """All figures of an evaluation.

    - ``iou_proposals``: `KeptBoxIoU` of the kept proposals (the paper's measure), for networks that have proposals.
    - ``iou``: `KeptBoxIoU` of the final detections from a score on.
    - ``recall_iou``: `TrueBoxIoU` among these, or among the kept proposals where they are all there is.
    - ``map``, ``map_50``, ``map_75``: COCO's average precision of all final detections, whatever their score; -1 if
      there is no true box at all.

    Args:
        proposals: Whether the network has proposals.
        detections: Whether the network has final detections.
        score_threshold: Final detections from this score on are kept.
    """

    def __init__(self, *, proposals: bool, detections: bool, score_threshold: float) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.recall_iou = TrueBoxIoU()
        self.iou_proposals = KeptBoxIoU() if proposals else None
        self.iou = KeptBoxIoU() if detections else None
        self.average_precision = AveragePrecision() if detections else None

    def update(
        self,
        found: Sequence[dict[str, Tensor]],
        proposals: Sequence[Tensor] | None,
        targets: Sequence[DetectionTarget],
    ) -> None:
        """Add images.

        Args:
            found: Per image "boxes" ``(n, 4)``, "scores" and "labels" ``(n,)``.
            proposals: Per image the kept proposals ``(m, 4)``, or None.
            targets: Per image the true "boxes" and "labels".
        """
        truth = [target["boxes"] for target in targets]
        if self.iou_proposals is not None and proposals is not None:
            self.iou_proposals.update(proposals, truth)
        kept = [result["boxes"] for result in found]
        if self.iou is not None and self.average_precision is not None:
            kept = [result["boxes"][result["scores"] >= self.score_threshold] for result in found]
            self.iou.update(kept, truth)
            self.average_precision.update(
                list(found), [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]
            )
        self.recall_iou.update(kept, truth)

    def compute(self) -> dict[str, Tensor]:
        """The figures by name, scalars, of the images on all processes; then forget them."""
        values = {"recall_iou": self.recall_iou.compute()}
        if self.iou_proposals is not None:
            values["iou_proposals"] = self.iou_proposals.compute()
        if self.iou is not None:
            values["iou"] = self.iou.compute()
        if self.average_precision is not None:
            precision = self.average_precision.compute()
            values |= {name: precision[name] for name in ("map", "map_50", "map_75")}
        for metric in self.children():
            assert isinstance(metric, Metric)
            metric.reset()
        return values

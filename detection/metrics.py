"""Metrics of detection: mean IoU of kept and of true boxes, and COCO's average precision. Exact over processes."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from coordconv_apps.utils.distributed import gather_ranks
from detection.batches import DetectionTarget
from detection.boxes import Found

# COCO's, in double precision. Torchmetrics' own are rounded to single precision, and a recall of exactly 0.28 is then
# below the threshold 0.28.
_IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
_RECALL_THRESHOLDS: list[float] = np.linspace(0.0, 1.0, 101).tolist()


class _MeanBestIoU(Metric):
    """Sum of best IoUs, and the number of boxes that it adds up."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, boxes: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        for own, other in zip(boxes, others, strict=True):
            if len(own) and len(other):
                self.total += box_iou(own.float(), other.float()).amax(1).sum()
            self.count += len(own)

    def compute(self) -> Tensor:
        """Return the mean in [0, 1], a scalar; 0 if there was no box at all."""
        return self.total / self.count.clamp(min=1)


class KeptBoxIoU(_MeanBestIoU):
    """The paper's metric: the best IoU with any true box, averaged over kept boxes (section 5).

    Every kept box of every image has the same weight. On an image without true boxes, each kept box counts as 0. An
    image without kept boxes adds nothing. Without any kept box at all the value is 0.

    Example:
        >>> metric = KeptBoxIoU()
        >>> kept, true = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])
        >>> metric.update([kept], [true])
        >>> metric.compute()
        tensor(0.5000)
    """

    def update(self, kept: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
        """Add the kept boxes ``(n, 4)`` and the true boxes ``(m, 4)`` of images; n and m may be 0."""
        self._add(kept, truth)


class TrueBoxIoU(_MeanBestIoU):
    """Recall in terms of IoU: the best IoU with any kept box, averaged over true boxes.

    Every true box of every image has the same weight. A true box of an image without kept boxes counts as 0. An image
    without true boxes adds nothing. Without any true box at all the value is 0.

    Example:
        >>> metric = TrueBoxIoU()
        >>> metric.update([torch.zeros(0, 4)], [torch.tensor([[0.0, 0.0, 4.0, 2.0]])])
        >>> metric.compute()
        tensor(0.)
    """

    def update(self, kept: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
        """Add the kept boxes ``(n, 4)`` and the true boxes ``(m, 4)`` of images; n and m may be 0."""
        self._add(truth, kept)


class AveragePrecision(MeanAveragePrecision):
    """COCO's average precision, also for processes with different numbers of images.

    Torchmetrics gathers image by image, which hangs if processes hold different numbers of images. Here each process
    gathers the images of all processes as objects and computes the value itself.

    Args:
        max_detections: Number of detections of an image that count, those with the highest scores; 100 in COCO.
        by_size: Whether to return all twelve of COCO's figures.

    Example:
        >>> metric = AveragePrecision()
        >>> box, label = torch.tensor([[2.0, 2.0, 9.0, 9.0]]), torch.tensor([1])
        >>> metric.update(
        ...     [{"boxes": box, "scores": torch.tensor([0.8]), "labels": label}], [{"boxes": box, "labels": label}]
        ... )
        >>> metric.compute()
        {'map': tensor(1.), 'map_50': tensor(1.), 'map_75': tensor(1.)}
    """

    def __init__(self, max_detections: int = 100, *, by_size: bool = False) -> None:
        thresholds = [1, 10, max_detections]
        super().__init__(
            iou_thresholds=_IOU_THRESHOLDS,
            rec_thresholds=_RECALL_THRESHOLDS,
            max_detection_thresholds=thresholds,
            backend="faster_coco_eval",
            sync_on_compute=False,
        )
        self.names: tuple[str, ...] = ("map", "map_50", "map_75")
        if by_size:
            recalls = (f"mar_{count}" for count in thresholds)
            sizes = (f"{kind}_{size}" for kind in ("map", "mar") for size in ("small", "medium", "large"))
            self.names += (*recalls, *sizes)
        self.warn_on_many_detections = False  # that the best ones count is COCO's rule; the task warns of many objects

    def compute(self) -> dict[str, Tensor]:
        """Return "map", "map_50" and "map_75" of the images of all processes; -1 if there is no true box at all.

        With ``by_size``, also "mar_1", "mar_10" and "mar_<max_detections>" (average recall of that many detections in
        an image), and "map_small", "map_medium", "map_large", "mar_small", "mar_medium" and "mar_large": below 32 x 32
        pixels, up to 96 x 96, and above.
        """
        own = {name: list(values) for name, values in self.metric_state.items()}
        if self.distributed_available_fn():
            ranks = gather_ranks({name: [value.cpu() for value in values] for name, values in own.items()})
            for name in own:
                # Processes get images in turn: gathered in turn, the images are in their original order.
                rounds = itertools.zip_longest(*(rank[name] for rank in ranks))
                setattr(self, name, [value.to(self.device) for r in rounds for value in r if value is not None])
        try:
            result = super().compute()
        finally:
            for name, values in own.items():
                setattr(self, name, values)
        return {name: result[name] for name in self.names}


class EvaluationMetrics(nn.Module, ABC):
    """All metrics of an evaluation, each a submodule under its name."""

    @abstractmethod
    def update(self, found: Found, targets: Sequence[DetectionTarget]) -> None:
        """Add the detections in images, and their true boxes and labels."""

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name, scalars, over the images of all processes."""
        values: dict[str, Tensor] = {}
        for name, metric in self.named_children():
            assert isinstance(metric, Metric)
            value = metric.compute()
            values |= value if isinstance(value, dict) else {name: value}
        return values


class ProposalMetrics(EvaluationMetrics):
    """Metrics of region proposals alone.

    - ``iou_proposals``: `KeptBoxIoU` of the kept proposals, the paper's metric.
    - ``recall_iou``: `TrueBoxIoU` among the kept proposals.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recall_iou = TrueBoxIoU()
        self.iou_proposals = KeptBoxIoU()

    def update(self, found: Found, targets: Sequence[DetectionTarget]) -> None:
        """Add images."""
        assert found.proposals is not None
        truth = [target["boxes"] for target in targets]
        self.recall_iou.update(found.proposals, truth)
        self.iou_proposals.update(found.proposals, truth)


class DetectionMetrics(EvaluationMetrics):
    """Metrics of a detector with classes and scores.

    - ``iou``: `KeptBoxIoU` of the final detections with a score of at least ``score_threshold``.
    - ``recall_iou``: `TrueBoxIoU` among these.
    - ``map``, ``map_50``, ``map_75``: COCO's average precision of the ``max_detections`` best detections of each image.
    - ``iou_proposals``: `KeptBoxIoU` of the kept proposals, the paper's metric, for networks with proposals.

    Crowds are no true boxes for the IoU metrics. With ``by_size``, there are all twelve of COCO's figures, see
    `AveragePrecision`.
    """

    def __init__(
        self, *, proposals: bool, score_threshold: float, max_detections: int = 100, by_size: bool = False
    ) -> None:
        super().__init__()
        self.score_threshold = score_threshold
        self.recall_iou = TrueBoxIoU()
        self.iou_proposals = KeptBoxIoU() if proposals else None
        self.iou = KeptBoxIoU()
        self.average_precision = AveragePrecision(max_detections, by_size=by_size)

    def update(self, found: Found, targets: Sequence[DetectionTarget]) -> None:
        """Add images."""
        truth = [t["boxes"][t["iscrowd"] == 0] if "iscrowd" in t else t["boxes"] for t in targets]
        kept = [result["boxes"][result["scores"] >= self.score_threshold] for result in found.detections]
        self.recall_iou.update(kept, truth)
        if self.iou_proposals is not None and found.proposals is not None:
            self.iou_proposals.update(found.proposals, truth)
        self.iou.update(kept, truth)
        self.average_precision.update(found.detections, targets)  # type: ignore[arg-type]  # typed dicts

"""Detection methods: one class each, chosen with ``--model=FasterRCNN`` or ``--model=RegionProposals``."""

from detection.tasks.base import DetectionTask
from detection.tasks.faster_rcnn import FasterRCNN
from detection.tasks.region_proposals import RegionProposals

__all__ = ["DetectionTask", "FasterRCNN", "RegionProposals"]

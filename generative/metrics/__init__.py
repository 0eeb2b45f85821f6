"""Metrics of how much of the data a generator covers: functions of point clouds, and metrics that accumulate images."""

from generative.metrics.coverage import precision_recall_density_coverage
from generative.metrics.histograms import histogram_metrics
from generative.metrics.intrinsic_dimension import intrinsic_dimension, local_dimension
from generative.metrics.patch_distance import PatchDistance
from generative.metrics.sliced_wasserstein import sliced_wasserstein_distance
from generative.metrics.support_size import support_size
from generative.metrics.two_shapes import TwoShapeMetrics

__all__ = [
    "PatchDistance",
    "TwoShapeMetrics",
    "histogram_metrics",
    "intrinsic_dimension",
    "local_dimension",
    "precision_recall_density_coverage",
    "sliced_wasserstein_distance",
    "support_size",
]

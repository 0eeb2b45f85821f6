"""Coordinate classification: from a centre to its pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from coordconv_apps.coordinates.losses import full_cross_entropy, sampled_cross_entropy
from coordconv_apps.coordinates.metrics import PixelAccuracy
from coordconv_apps.coordinates.models import PixelClassifier, PixelNetworkName, build_pixel_network
from coordconv_apps.coordinates.tasks.base import CoordinateTask
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import COUNT, FRACTION, POSITIVE, POSITIVE_INT, at_least, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from coordconv_apps.utils.argument_checks import Allowed

SAMPLING_ARGS = frozenset({"loss", "near", "others", "others_weight"})
PIXEL_RANGES: Mapping[str, Allowed] = {  # of the tasks whose networks go from positions to pixels
    "network": one_of(PixelNetworkName),
    "baseline": one_of(PixelNetworkName),
    "kernel_size": at_least(2),
    "gain": POSITIVE,
    "near": COUNT,
    "others": POSITIVE_INT,
    "others_weight": FRACTION,
}


class CoordinateClassification(CoordinateTask):
    """Coordinate classification (Liu et al., 2018, section 4): from a centre (x, y) to its pixel.

    A set is perfect when every pixel is hit.

    Args:
        coords: Coordinates that the network sees: "none", "xy", or "xyr" with the distance from the centre.
        network: The network: "paper" (the CoordConv network of the task), "deconv" (transposed convolutions),
            "upsample" (upsampling and convolutions), or "budget" ("deconv" within the parameters of "paper").
        baseline: The network that coords=none trains instead; null: the one named by network.
        width: Factor of the channels of "deconv" and "upsample" (m in the paper).
        kernel_size: Kernel size of "deconv", "upsample" (odd) and "budget".
        scale_inputs: Whether positions are scaled to [-1, 1], or fed in pixels as by the authors.
        gain: Factor of the initial He-normal weights of network=paper, above 0.
        loss: "full": cross-entropy over all pixels. "sampled": over those around the true one, with a softmax that is
            estimated from random others (for network=paper; other networks take all pixels).
        near: With "sampled", distance from the true pixel up to which all pixels are compared, in x and in y.
        others: With "sampled", number of other, random pixels per sample.
        others_weight: With "sampled", weight of a random pixel: from 0 (it counts once) to 1 (it also represents the
            pixels that were not drawn).
        canvas_size: Height and width of the data's canvas, in pixels.
        square_size: Side of the data's squares, in pixels.
        coord_gain: Further factor of the initial coordinate weights, at least 0.
        lr: Peak learning rate of Adam, above 0.
        baseline_lr: Peak learning rate of the baseline; null: lr.
        beta2: Decay of Adam's second moment, in [0, 1).
        weight_decay: L2 penalty of weights, but not of biases and norms, as in torch: weight_decay times a weight is
            added to its gradient. A loss of c times the sum of squares, as in the paper, is weight_decay=2c.
        baseline_weight_decay: L2 penalty of the baseline; null: weight_decay.
        schedule: Learning rate over the training: "constant", "cosine" to zero, or "step", which multiplies it by
            ``lr_gamma`` at each of ``lr_milestones``.
        warmup: Fraction of the training, in [0, 1), over which the learning rate rises linearly to its peak.
        lr_milestones: With "step", fractions of the training, each in (0, 1).
        lr_gamma: With "step", factor of the learning rate at each of lr_milestones, in (0, 1].
        exact_batch_norm: Whether validations see batch norms with the statistics of the whole training set, computed
            anew for each, instead of running averages.
        stop_when_perfect: Whether to stop the training once both sets are perfect.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    ranges: ClassVar = {**CoordinateTask.ranges, **PIXEL_RANGES, "loss": one_of(Literal["full", "sampled"])}
    metric = PixelAccuracy
    monitor = "val/train_accuracy"
    monitor_mode = "max"
    headline = "val/accuracy"
    perfect_value = 1.0
    changeable_args = CoordinateTask.changeable_args | SAMPLING_ARGS

    def __init__(
        self,
        coords: Coords = "none",
        network: PixelNetworkName = "paper",
        baseline: PixelNetworkName | None = None,
        width: int = 1,
        kernel_size: int = 3,
        scale_inputs: bool = True,
        gain: float = 1.0,
        loss: Literal["full", "sampled"] = "full",
        near: int = 4,
        others: int = 128,
        others_weight: float = 1.0,
        canvas_size: int = 64,
        square_size: int = 9,
        coord_gain: float = 1.0,
        lr: float = 0.005,
        baseline_lr: float | None = None,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        baseline_weight_decay: float | None = None,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
        exact_batch_norm: bool = False,
        stop_when_perfect: bool = True,
    ) -> None:
        super().__init__(coords)
        self.loss, self.near, self.others, self.others_weight = loss, near, others, others_weight
        self.network = build_pixel_network(
            self.arm_network,
            coords,
            canvas_size=canvas_size,
            width=width,
            kernel_size=kernel_size,
            scale_inputs=scale_inputs,
            gain=gain,
            coord_gain=coord_gain,
        )

    def read_out(self, outputs: Tensor) -> Tensor:
        """Return the probability of each pixel."""
        return outputs.flatten(1).softmax(1).view_as(outputs)

    def training_loss(self, centers: Tensor) -> Tensor:
        """Return the cross-entropy over all pixels, or over a sample of them."""
        if self.loss == "sampled" and isinstance(self.network, PixelClassifier):
            return sampled_cross_entropy(self.network, centers, self.near, self.others, self.others_weight)
        return full_cross_entropy(self(centers), centers)

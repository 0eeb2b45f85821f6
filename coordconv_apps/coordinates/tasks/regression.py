"""Coordinate regression: from the one-hot image of a centre to its position."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from coordconv_apps.coordinates.metrics import PositionError
from coordconv_apps.coordinates.models import PositionNet, PositionNetworkName, build_regressor
from coordconv_apps.coordinates.not_so_clevr import one_hot
from coordconv_apps.coordinates.tasks.base import CoordinateTask
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.training.task import ExportInterface
from coordconv_apps.utils.argument_checks import one_of

if TYPE_CHECKING:
    from torch import Tensor


class CoordinateRegression(CoordinateTask):
    """Coordinate regression (Liu et al., 2018, section 4): from the one-hot image of a centre to its (x, y).

    The loss is the mean squared error of positions, as fractions of the canvas. A set is perfect when the mean distance
    is below 0.1 pixels.

    Args:
        coords: Coordinates that the network sees: "none", "xy", or "xyr" with the distance from the centre.
        network: The network: "paper" (the CoordConv network of the task), "dense" or "strided" (the paper's two
            baselines), or "budget" ("strided" within the parameters of "paper").
        baseline: The network that coords=none trains instead; null: the one named by network.
        width: Factor of the channels of "dense" and "strided" (m in the paper).
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

    ranges: ClassVar = CoordinateTask.ranges | dict.fromkeys(("network", "baseline"), one_of(PositionNetworkName))
    metric = PositionError
    monitor = "val/train_euclidean_distance"
    monitor_mode = "min"
    headline = "val/euclidean_distance"
    perfect_value = 0.1

    def __init__(
        self,
        coords: Coords = "none",
        network: PositionNetworkName = "paper",
        baseline: PositionNetworkName | None = None,
        width: int = 1,
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
        self.network = build_regressor(
            self.arm_network,
            coords,
            canvas_size=canvas_size,
            width=width,
            coord_gain=coord_gain,
        )

    def forward(self, centers: Tensor) -> Tensor:
        """Return the positions found, in pixels, ``(B, 2)``, in the images of centres, int64 ``(B, 1, 2)``."""
        images = one_hot(centers, self.canvas_size).unsqueeze(1).to(self.dtype)
        positions: Tensor  # as fractions of the canvas
        # From a square_size of 3 on, no centre of the data lies on the border; but `predict` takes any centre.
        inside = self.square_size >= 3 and (
            self.training or bool(((centers > 0) & (centers < self.canvas_size - 1)).all())
        )
        if isinstance(self.network, PositionNet) and inside:
            with torch.autocast(self.device.type, enabled=False):  # half precision has steps of 1/4 pixel
                positions = self.network.forward_collapsed(images)
        else:
            positions = self.network(images)
        return positions * self.canvas_size

    def training_loss(self, centers: Tensor) -> Tensor:
        """Return the mean squared error of positions, as fractions of the canvas."""
        return F.mse_loss(self(centers) / self.canvas_size, centers[:, 0] / self.canvas_size)

    def export_interface(self) -> ExportInterface:
        """Name and describe the tensors of `export_module`."""
        return ExportInterface(
            inputs={"images": "one-hot images: 1 at the centre, 0 elsewhere"},
            outputs={"positions": "x and y as fractions of the canvas size"},
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return two images with the centre in the middle."""
        return (one_hot(self.middle(), self.canvas_size).unsqueeze(1),)

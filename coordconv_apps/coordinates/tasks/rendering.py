"""Coordinate rendering: from a centre to the square around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch.nn.functional as F

from coordconv_apps.coordinates.losses import full_cross_entropy, sampled_rendering_loss
from coordconv_apps.coordinates.metrics import PixelIoU
from coordconv_apps.coordinates.models import PixelNetworkName, PixelRenderer, build_pixel_network
from coordconv_apps.coordinates.models.pixel_networks import HALO
from coordconv_apps.coordinates.not_so_clevr import render
from coordconv_apps.coordinates.tasks.base import CoordinateTask
from coordconv_apps.coordinates.tasks.classification import PIXEL_RANGES, SAMPLING_ARGS
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule
from coordconv_apps.utils.argument_checks import NON_NEGATIVE, one_of

if TYPE_CHECKING:
    from torch import Tensor


class CoordinateRendering(CoordinateTask):
    """Coordinate rendering (Liu et al., 2018, section 4): from a centre (x, y) to the image of the square around it.

    A set is perfect when the mean intersection over union is at least 0.99.

    Args:
        coords: Coordinates that the network sees: "none", "xy", or "xyr" with the distance from the centre.
        network: The network: "paper" (the CoordConv network of the task), "deconv" (transposed convolutions),
            "upsample" (upsampling and convolutions), or "budget" ("deconv" within the parameters of "paper").
        baseline: The network that coords=none trains instead; null: the one named by network.
        objects: Squares per sample, 1 or 2.
        width: Factor of the channels of "deconv", "upsample" and the 3x3 convolutions of "paper" (m in the paper).
        kernel_size: Kernel size of "deconv", "upsample" (odd) and "budget".
        scale_inputs: Whether positions are scaled to [-1, 1], or fed in pixels as by the authors.
        gain: Factor of the initial He-normal weights of the 1x1 convolutions of network=paper, above 0.
        loss: "full": sigmoid cross-entropy over all pixels. "sampled": over those around the centre, with a softmax
            that is estimated from random others (for network=paper; other networks take all pixels). "mse": mean
            squared error of all pixels' probabilities (in the authors' code, of their logits).
        near: With "sampled", distance from the centre up to which pixels are compared, in x and in y; above half a
            square and above 5.
        others: With "sampled", number of other, random pixels per sample.
        others_weight: With "sampled", weight of a random pixel: from 0 (it counts once) to 1 (it also represents the
            pixels that were not drawn).
        center_weight: With network=paper, weight of the loss of classification on the softmax inside the network.
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

    divergence_args = ("center_weight", *CoordinateTask.divergence_args)
    ranges: ClassVar = {
        **CoordinateTask.ranges,
        **PIXEL_RANGES,
        "loss": one_of(Literal["full", "sampled", "mse"]),
        "objects": (lambda value: value in (1, 2), "1 or 2"),
        "center_weight": NON_NEGATIVE,
    }
    metric = PixelIoU
    monitor = "val/train_iou"
    monitor_mode = "max"
    headline = "val/iou"
    perfect_value = 0.99
    changeable_args = CoordinateTask.changeable_args | SAMPLING_ARGS | {"center_weight"}

    def __init__(
        self,
        coords: Coords = "none",
        network: PixelNetworkName = "paper",
        baseline: PixelNetworkName | None = None,
        objects: int = 1,
        width: int = 1,
        kernel_size: int = 3,
        scale_inputs: bool = True,
        gain: float = 1.0,
        loss: Literal["full", "sampled", "mse"] = "full",
        near: int = 7,
        others: int = 128,
        others_weight: float = 1.0,
        center_weight: float = 0.0,
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
        if loss == "sampled" and objects != 1:
            raise ValueError("model.loss=sampled: needs model.objects=1; two objects train with model.loss=full or mse")
        least = max(self.square_size // 2, HALO)
        # With fewer pixels, the paper's network would hardly see what must stay black.
        if loss == "sampled" and "paper" in (network, baseline) and near <= least:
            raise ValueError(f"model.near={near}: must be above {least} with model.loss=sampled")
        self.objects = objects
        self.loss, self.near, self.others, self.others_weight = loss, near, others, others_weight
        self.center_weight = center_weight
        self.network = build_pixel_network(
            self.arm_network,
            coords,
            renders=True,
            canvas_size=canvas_size,
            objects=objects,
            width=width,
            kernel_size=kernel_size,
            scale_inputs=scale_inputs,
            gain=gain,
            coord_gain=coord_gain,
        )

    def read_out(self, outputs: Tensor) -> Tensor:
        """Return the probability that each pixel is white."""
        return outputs.sigmoid()

    def training_loss(self, centers: Tensor) -> Tensor:
        """Return the loss of the pixels of the image, and of the softmax inside the paper's network."""
        network = self.network
        if isinstance(network, PixelRenderer) and self.loss == "sampled":
            sampling = (self.near, self.others, self.others_weight)
            return sampled_rendering_loss(network, centers, self.square_size, *sampling, self.center_weight)
        if not isinstance(network, PixelRenderer) or self.center_weight == 0:
            return self._image_loss(self(centers), centers)
        logits = network.classifier(centers.flatten(1).to(self.dtype))
        image_loss = self._image_loss(network.render(logits), centers)
        return image_loss + self.center_weight * full_cross_entropy(logits, centers)

    def _image_loss(self, logits: Tensor, centers: Tensor) -> Tensor:
        """Return the loss over all pixels of the image."""
        images = self.targets(centers).to(logits.dtype)
        if self.loss == "mse":
            return F.mse_loss(logits.sigmoid(), images)
        return F.binary_cross_entropy_with_logits(logits, images)

    def targets(self, centers: Tensor) -> Tensor:
        """Return the images of the squares, ``(B, canvas_size, canvas_size)``."""
        return render(centers, self.canvas_size, self.square_size)

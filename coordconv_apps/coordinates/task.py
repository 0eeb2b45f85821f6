"""Training and evaluation of the coordinate-transform tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from coordconv_apps.coordinates.checks import check_arguments
from coordconv_apps.coordinates.losses import full_cross_entropy, sampled_cross_entropy, sampled_rendering_loss
from coordconv_apps.coordinates.metrics import MeanFigures, PixelHits, PixelOverlap, PositionErrors
from coordconv_apps.coordinates.models import Network, TaskName, build_network
from coordconv_apps.coordinates.regressors import PositionNet
from coordconv_apps.coordinates.renderers import PixelClassifier, PixelRenderer
from coordconv_apps.coordinates.squares import one_hot, render
from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule, lr_factor
from coordconv_apps.training.task import Task

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from coordconv_apps.coordinates.data import SquareBatch

Loss = Literal["sampled", "full", "mse"]
EvalSet = Literal["", "train_"]

CLOCK_KEY = "coordinates_clock"

EVAL_SETS: tuple[EvalSet, ...] = ("", "train_")
"""What the figures of the two sets that are evaluated have before their names: first the test set."""

HEADLINES: dict[TaskName, tuple[str, Literal["min", "max"], float]] = {
    "classification": ("accuracy", "max", 1.0),
    "regression": ("euclidean_distance", "min", 0.1),
    "rendering": ("iou", "max", 0.99),
}
"""By task: the metric that counts, whether large or small values are good, and what both sets need to be perfect."""


class CoordinateTask(Task):
    """One of the three coordinate-transform tasks (Liu et al., 2018, section 2 to 4).

    Args:
        coords: Coordinates that the network sees: "none", "xy", or "xyr" with the distance from the centre.
        task: "classification": from a centre to its pixel. "regression": from the one-hot image of a centre to its
            position. "rendering": from a centre to the square around it.
        network: The network: "paper" (the CoordConv network of the task), "deconv", "upsample" or "budget" for
            classification and rendering, "dense", "strided" or "budget" for regression.
        baseline: The network in place of it with coords=none; null: the same one.
        canvas_size: Height and width of the data's canvas, in pixels.
        square_size: Side of the data's squares, in pixels.
        objects: Squares per sample.
        width: The paper's factor of the numbers of channels, for the baselines and for rendering.
        kernel_size: Side of the kernels of deconv, upsample (odd) and of budget for them.
        scale_inputs: Whether positions are fed scaled to [-1, 1], or as numbers of pixels as by the authors.
        gain: Factor of the He-normal weights that the 1x1 convolutions of network=paper start from, above 0; for
            classification and rendering.
        coord_gain: Further factor of the coordinates' weights, at least 0.
        loss: What to train classification and rendering with. "full": cross-entropy over all pixels. "sampled": over
            those around the true one, with a softmax that is estimated from random others (for network=paper; other
            networks take all). "mse": mean squared error of all pixels' probabilities, for rendering. Regression always
            has the squared error of positions.
        near: With "sampled", how far the pixels around the true one reach, in pixels.
        others: With "sampled", number of random other pixels per sample.
        others_weight: With "sampled", from 0 (a random pixel counts as one) to 1 (for all those not drawn).
        center_weight: With network=paper of rendering, weight of the classification's loss on the softmax inside.
        lr: Peak learning rate of Adam, above 0.
        baseline_lr: The same for the baseline; null: lr.
        beta2: Decay of Adam's second moment, in [0, 1).
        weight_decay: L2 penalty of weights, not of biases and norms: what of a weight is added to its gradient, twice
            the factor of a sum of squares in the loss.
        baseline_weight_decay: The same for the baseline; null: weight_decay.
        schedule: Learning rate over the training: "constant", "cosine" to zero, or "step" by ``lr_gamma`` at
            each of ``lr_milestones``.
        warmup: Share of the training, in [0, 1), over which the rate climbs linearly to its peak.
        lr_milestones: Shares of the training, in (0, 1), at which "step" multiplies the rate.
        lr_gamma: What "step" multiplies by.
        stop_when_perfect: Whether to end the training when both sets are perfect: every pixel hit, a mean distance
            below 0.1 pixels, or a mean intersection over union of at least 0.99.

    Raises:
        ValueError: If an argument is out of range or does not go with the others.
    """

    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {"lr", "baseline_lr", "beta2", "weight_decay", "baseline_weight_decay", "stop_when_perfect"}
        | {
            "schedule",
            "warmup",
            "lr_milestones",
            "lr_gamma",
            "loss",
            "near",
            "others",
            "others_weight",
            "center_weight",
        }
    )

    def __init__(
        self,
        coords: Coords = "none",
        task: TaskName = "classification",
        network: Network = "paper",
        baseline: Network | None = None,
        canvas_size: int = 64,
        square_size: int = 9,
        objects: int = 1,
        width: int = 1,
        kernel_size: int = 3,
        scale_inputs: bool = True,
        gain: float = 1.0,
        coord_gain: float = 1.0,
        loss: Loss = "full",
        near: int = 4,
        others: int = 128,
        others_weight: float = 1.0,
        center_weight: float = 0.0,
        lr: float = 0.005,
        baseline_lr: float | None = None,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        baseline_weight_decay: float | None = None,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
        stop_when_perfect: bool = True,
    ) -> None:
        super().__init__(coords)
        self.save_hyperparameters()
        check_arguments(self.hparams)
        self.lr, self.weight_decay = lr, weight_decay
        if coords == "none" and baseline is not None:
            network = baseline
            self.lr = lr if baseline_lr is None else baseline_lr
            self.weight_decay = weight_decay if baseline_weight_decay is None else baseline_weight_decay
        self.schedule: Schedule = schedule
        self.warmup, self.lr_milestones, self.lr_gamma = warmup, lr_milestones or [], lr_gamma
        self.beta2 = beta2
        self.task_name: TaskName = task
        self.canvas_size, self.square_size, self.objects = canvas_size, square_size, objects
        self.loss: Loss = loss
        self.near, self.others, self.others_weight = near, others, others_weight
        self.center_weight = center_weight
        self.stop_when_perfect = stop_when_perfect
        self.network = build_network(
            task,
            network,
            coords,
            canvas_size=canvas_size,
            objects=objects,
            width=width,
            kernel_size=kernel_size,
            scale_inputs=scale_inputs,
            gain=gain,
            coord_gain=coord_gain,
        )
        figure, mode, _ = HEADLINES[task]
        self.monitor, self.monitor_mode = f"val/train_{figure}", mode  # type: ignore[misc]  # depends on the task
        self.headline = f"val/{figure}"
        kinds: dict[TaskName, type[MeanFigures]] = {
            "classification": PixelHits,
            "regression": PositionErrors,
            "rendering": PixelOverlap,
        }
        self.val_figures = nn.ModuleList(kinds[task]() for _ in EVAL_SETS)
        self.test_figures = nn.ModuleList(kinds[task]() for _ in EVAL_SETS)
        self.time_to_perfect: dict[str, float] = {}
        self._seconds_before = 0.0  # of the training that is resumed
        self._started = time.perf_counter()

    def _seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.perf_counter() - self._started

    def setup(self, stage: str) -> None:
        """Check that data and network agree.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: If they do not.
        """
        self._started = time.perf_counter()
        data = getattr(self.trainer, "datamodule", None)
        for name in ("canvas_size", "square_size", "objects"):
            own, there = getattr(self, name), getattr(data, name, None)
            if there is not None and own != there:
                flag = "two_objects" if name == "objects" else name
                raise ValueError(f"model.{name}={own}: the data have {there} (data.{flag})")

    def forward(self, centers: Tensor) -> Tensor:
        """What the network makes of samples.

        Args:
            centers: int64 ``(B, objects, 2)``, x and y in pixels.

        Returns:
            Classification and rendering: logits ``(B, H, W)``. Regression: positions ``(B, 2)``, x and y in pixels.
        """
        if self.task_name == "regression":
            images = one_hot(centers, self.canvas_size).unsqueeze(1).to(self.dtype)
            positions: Tensor  # as shares of the canvas
            if isinstance(self.network, PositionNet) and self.square_size >= 3:  # no centre lies on the border
                with torch.autocast(self.device.type, enabled=False):  # half precision has steps of 1/4 pixel
                    positions = self.network.forward_collapsed(images)
            else:
                positions = self.network(images)
            return positions * self.canvas_size
        logits: Tensor = self.network(centers.flatten(1).to(self.dtype))
        return logits

    def _loss(self, outputs: Tensor, centers: Tensor) -> Tensor:
        """The loss of whole outputs, as `forward` gives them: a scalar."""
        if self.task_name == "regression":
            return F.mse_loss(outputs / self.canvas_size, centers[:, 0] / self.canvas_size)
        if self.task_name == "classification":
            return full_cross_entropy(outputs, centers)
        images = render(centers, self.canvas_size, self.square_size).to(outputs.dtype)
        if self.loss == "mse":
            return F.mse_loss(outputs.sigmoid(), images)
        return F.binary_cross_entropy_with_logits(outputs, images)

    def _train_loss(self, centers: Tensor) -> Tensor:
        """The loss to train with, a scalar."""
        network, sampled = self.network, (self.near, self.others, self.others_weight)
        if self.loss == "sampled" and isinstance(network, PixelClassifier):
            return sampled_cross_entropy(network, centers, *sampled)
        if self.loss == "sampled" and isinstance(network, PixelRenderer):
            return sampled_rendering_loss(network, centers, self.square_size, *sampled, self.center_weight)
        if isinstance(network, PixelRenderer) and self.center_weight > 0:
            logits = network.classifier(centers.flatten(1).to(self.dtype))
            return self._loss(network.render(logits), centers) + self.center_weight * full_cross_entropy(
                logits, centers
            )
        return self._loss(self(centers), centers)

    def training_step(self, batch: SquareBatch, batch_idx: int) -> Tensor:
        """Loss of a batch.

        Args:
            batch: Samples.
            batch_idx: Not used.

        Returns:
            The loss, a scalar.
        """
        loss = self._train_loss(batch.centers)
        self.log_train({"train/loss": loss.detach()}, len(batch.centers))
        return loss

    def _step(self, batch: SquareBatch, sets: nn.ModuleList, of_set: int) -> None:
        figures = sets[of_set]
        assert isinstance(figures, MeanFigures)
        targets = batch.centers
        if self.task_name == "rendering":
            targets = render(batch.centers, self.canvas_size, self.square_size)
        figures.update(self(batch.centers), targets)

    def _log(self, stage: str, sets: nn.ModuleList) -> dict[str, float]:
        """Logs and returns the figures of both sets."""
        values: dict[str, Tensor] = {}
        for prefix, figures in zip(EVAL_SETS, sets, strict=True):
            assert isinstance(figures, MeanFigures)
            values |= {f"{stage}/{prefix}{name}": value for name, value in figures.compute().items()}
            figures.reset()
        # Every process holds the figures of all of them; the mean of equal numbers changes nothing.
        self.log_dict(values, sync_dist=True)
        return {name: value.item() for name, value in values.items()}

    def validation_step(self, batch: SquareBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the figures of its set.

        Args:
            batch: Samples.
            batch_idx: Not used.
            dataloader_idx: 0 for the test set, 1 for the training set.
        """
        self._step(batch, self.val_figures, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the figures and, in a training, the time so far; end the training if both sets are perfect."""
        values = self._log("val", self.val_figures)
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        seconds = self._seconds()
        self.log("val/seconds", seconds, sync_dist=True, reduce_fx="max")
        figure, mode, good = HEADLINES[self.task_name]
        both = [values[f"val/{prefix}{figure}"] for prefix in EVAL_SETS]
        perfect = all(value >= good if mode == "max" else value < good for value in both)
        if perfect and not self.time_to_perfect:
            self.time_to_perfect = {"time_to_perfect": seconds, "epochs_to_perfect": self.current_epoch + 1.0}
        if self.time_to_perfect:
            self.log_dict(self.time_to_perfect, sync_dist=True, reduce_fx="max")
        if perfect and self.stop_when_perfect:
            self.trainer.should_stop = True

    def test_step(self, batch: SquareBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the figures of its set.

        Args:
            batch: Samples.
            batch_idx: Not used.
            dataloader_idx: 0 for the test set, 1 for the training set.
        """
        self._step(batch, self.test_figures, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self._log("test", self.test_figures)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the time so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CLOCK_KEY] = {"seconds": self._seconds(), "perfect": self.time_to_perfect}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the time up again."""
        super().on_load_checkpoint(checkpoint)
        clock = checkpoint.get(CLOCK_KEY, {"seconds": 0.0, "perfect": {}})
        self._seconds_before, self.time_to_perfect = clock["seconds"], dict(clock["perfect"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with an L2 penalty on the weights of layers, and the learning rate's schedule step by step."""
        # A weight has more than one axis, coordinate weights too; biases and the parameters of norms have one.
        weights = [p for p in self.network.parameters() if p.dim() > 1]
        others = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": weights, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        # One call for all parameters: these networks are so small that the calls would cost more than the numbers.
        # Lightning cannot clip the gradients of fused optimizers in half precision.
        fused = self.device.type in ("cpu", "cuda") and not self.trainer.gradient_clip_val
        optimizer = torch.optim.Adam(groups, lr=self.lr, betas=(0.9, self.beta2), fused=fused)
        factor = lr_factor(
            self.schedule,
            self.trainer.estimated_stepping_batches,
            warmup=self.warmup,
            milestones=self.lr_milestones,
            gamma=self.lr_gamma,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def export_module(self) -> nn.Module:
        """The network: centres ``(B, 2 * objects)`` or one-hot images ``(B, 1, H, W)`` in, as `models` has it."""
        return self.network

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two samples in the middle of the canvas."""
        middle = torch.full((2, self.objects, 2), self.canvas_size // 2, device=self.device)
        if self.task_name == "regression":
            return (one_hot(middle, self.canvas_size).unsqueeze(1),)
        return (middle.flatten(1).float(),)

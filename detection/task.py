"""Training and evaluation of a detection network on canvases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from coordconv_apps.nn.coords import Coords
from coordconv_apps.training.schedules import Schedule, check_schedule, lr_factor
from coordconv_apps.training.task import Task
from detection.boxes import keep_best
from detection.deploy import DeployedDetector, DeployedProposals
from detection.metrics import DetectionMetrics
from detection.models import CoordInit, add_coords, as_input, build_network, detect
from detection.paper import Padding, PaperFasterRCNN, ProposalNetwork
from detection.proposals import proposal_losses, propose

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

    from detection.data import DetectionBatch, PictureBatch

Protocol = Literal["two_stage", "proposals"]
Optimizer = Literal["adam", "adamw", "sgd"]


class DetectionTask(Task):
    """Faster R-CNN, or its region proposals alone, with or without coordinates (Liu et al., 2018, section 4).

    Args:
        coords: Coordinates that the chosen layers see: "none" is the plain-convolution baseline, "xy", or
            "xyr" with the distance from the centre.
        network: "paper" is the paper's small network; else the name of a torchvision detection network, such
            as "fasterrcnn_resnet50_fpn", built without downloads.
        protocol: "two_stage" trains as torchvision does. "proposals" trains the region proposals alone as the
            authors do (network "paper" only).
        num_classes: Classes to tell apart, background not counted.
        padding: Zero padding of the paper network's 5x5 layers: "same" pads, "valid" does not.
        coord_layers: Layers that get coordinates: "paper" (those the paper names; the first of a network by
            torchvision), "first", "all", or a regular expression that their names match.
        coord_init: How the weights of coordinates start: "random" as in the paper, or "zero".
        network_args: Keyword arguments for torchvision's builder of a network by name, e.g. {min_size: 128}.
        clip_moved: Under "proposals": cut moved boxes off at the border before they are matched and kept.
        score_threshold: Final detections count and are drawn from this score on, in [0, 1]. COCO figures use
            all.
        optimizer: Update rule.
        lr: Peak learning rate, above 0.
        momentum: Momentum of SGD, or beta1 of Adam, in [0, 1).
        beta2: Decay of Adam's second moment, in [0, 1).
        weight_decay: L2 penalty of "adam" and "sgd", decoupled decay of "adamw".
        schedule: Learning rate over the training: "constant", "cosine" to zero, or "step" by ``lr_gamma`` at
            each of ``lr_milestones``.
        warmup: Share of the training, in [0, 1), over which the rate climbs linearly to its peak.
        lr_milestones: Shares of the training, in (0, 1), at which "step" multiplies the rate.
        lr_gamma: What "step" multiplies by.

    Raises:
        ValueError: If an argument is out of range or does not go with the others.
    """

    canvas_size: Tensor

    monitor: ClassVar[str] = "val/iou_proposals"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    precisions = ("32-true", "16-mixed", "bf16-mixed")  # boxes are of single precision
    changeable_args: ClassVar[frozenset[str]] = frozenset(
        {
            "lr",
            "momentum",
            "beta2",
            "weight_decay",
            "schedule",
            "warmup",
            "lr_milestones",
            "lr_gamma",
            "score_threshold",
        }
    )

    def __init__(
        self,
        coords: Coords = "none",
        network: str = "paper",
        protocol: Protocol = "two_stage",
        num_classes: int = 10,
        padding: Padding = "same",
        coord_layers: str = "paper",
        coord_init: CoordInit = "random",
        network_args: dict[str, int | float] | None = None,
        clip_moved: bool = True,
        score_threshold: float = 0.5,
        optimizer: Optimizer = "adam",
        lr: float = 0.001,
        momentum: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        schedule: Schedule = "cosine",
        warmup: float = 0.0,
        lr_milestones: list[float] | None = None,
        lr_gamma: float = 0.1,
    ) -> None:
        super().__init__(coords)
        self.save_hyperparameters()
        if lr <= 0:
            raise ValueError(f"lr={lr}: must be above 0")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold={score_threshold}: must be in [0, 1]")
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: must be at least 1")
        check_schedule(warmup, lr_milestones or [], lr_gamma)
        self.protocol = protocol
        if protocol == "two_stage":
            self.monitor = "val/map"  # type: ignore[misc]  # which figure counts depends on the protocol
        self.num_classes = num_classes
        self.clip_moved = clip_moved
        self.score_threshold = score_threshold
        self.optimizer, self.lr, self.momentum, self.beta2 = optimizer, lr, momentum, beta2
        self.weight_decay = weight_decay
        self.schedule, self.warmup, self.lr_milestones, self.lr_gamma = schedule, warmup, lr_milestones or [], lr_gamma
        self.network = build_network(
            network, protocol=protocol, num_classes=num_classes, padding=padding, network_args=network_args
        )
        add_coords(self.network, coords, coord_layers, coord_init)
        # The layout that CPUs and GPUs convolve fastest in.
        self.network.to(memory_format=torch.channels_last)
        # Height and width that the data have; exported networks are made for them.
        self.register_buffer("canvas_size", torch.tensor([64, 64]))
        self.val_metrics, self.test_metrics = self._make_metrics(), self._make_metrics()

    def _make_metrics(self) -> DetectionMetrics:
        detections = self.protocol == "two_stage"
        proposals = not detections or hasattr(self.network, "rpn")
        return DetectionMetrics(proposals=proposals, detections=detections, score_threshold=self.score_threshold)

    def setup(self, stage: str) -> None:
        """Check that data and network agree on the number of classes, and learn the size of the canvases.

        Args:
            stage: What the trainer is about to do.

        Raises:
            ValueError: If they do not.
        """
        data = getattr(self.trainer, "datamodule", None)
        settings = getattr(data, "settings", None)
        if stage == "fit" and settings is not None:
            self.canvas_size.fill_(settings.image_size)
        names = getattr(data, "class_names", None)
        if names is not None and self.protocol == "two_stage" and len(names) != self.num_classes:
            raise ValueError(f"num_classes={self.num_classes}: the data have {len(names)} classes")

    def losses(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """The parts of the training loss, scalars whose sum is minimised.

        Args:
            batch: Canvases with their true boxes.

        Returns:
            The protocol's losses by name.
        """
        inputs = as_input(self.network, batch["images"])
        if isinstance(self.network, ProposalNetwork):
            logits, deltas, anchors = self.network(inputs)
            boxes = [target["boxes"] for target in batch["targets"]]
            size = batch["images"].shape[-2:]
            return proposal_losses(logits, deltas, anchors, boxes, size, clip_moved=self.clip_moved)
        losses: dict[str, Tensor] = self.network(inputs, batch["targets"])
        return losses

    def find(self, images: Tensor) -> tuple[list[dict[str, Tensor]], list[Tensor] | None]:
        """Find objects, in evaluation mode.

        Args:
            images: ``(B, 1, H, W)`` in [0, 1].

        Returns:
            Per image the detections, best first: "boxes" ``(n, 4)`` in pixels, "scores" ``(n,)``, "labels"
            ``(n,)`` from 1; under protocol "proposals" these are the kept proposals, all labelled 1. Then per
            image the at most ten kept proposals ``(m, 4)``, or None for a network without any.
        """
        if isinstance(self.network, ProposalNetwork):
            logits, deltas, anchors = self.network(as_input(self.network, images))
            found = propose(logits, deltas, anchors, images.shape[-2:], clip_moved=self.clip_moved)
            for result in found:
                result["labels"] = torch.ones_like(result["scores"], dtype=torch.int64)
            return found, [result["boxes"] for result in found]
        found, proposals = detect(self.network, images)
        return found, None if proposals is None else [keep_best(boxes) for boxes in proposals]

    def _step(self, batch: DetectionBatch, metrics: DetectionMetrics) -> None:
        found, proposals = self.find(batch["images"])
        metrics.update(found, proposals, batch["targets"])

    def _log(self, stage: str, metrics: DetectionMetrics) -> None:
        values = {f"{stage}/{name}": value.to(self.device) for name, value in metrics.compute().items()}
        # Every process holds the figures of all of them; the mean of equal numbers changes nothing.
        self.log_dict(values, sync_dist=True)

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        """Loss of a batch.

        Args:
            batch: Canvases with their true boxes.
            batch_idx: Not used.

        Returns:
            The sum of the losses, a scalar.
        """
        losses = self.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        self.log_train({"train/loss": loss.detach()}, len(batch["images"]))
        return loss

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Add a batch to the validation figures.

        Args:
            batch: Canvases with their true boxes.
            batch_idx: Not used.
        """
        self._step(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation figures."""
        self._log("val", self.val_metrics)

    def test_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        """Add a batch to the test figures.

        Args:
            batch: Canvases with their true boxes.
            batch_idx: Not used.
        """
        self._step(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test figures."""
        self._log("test", self.test_metrics)

    def predict_step(self, batch: PictureBatch, batch_idx: int) -> list[dict[str, Tensor]]:
        """Find objects in pictures of any size, one by one.

        Args:
            batch: Pictures.
            batch_idx: Not used.

        Returns:
            Per picture "boxes" ``(n, 4)`` in pixels, "scores" ``(n,)`` from ``score_threshold`` (all, for
            proposals), "labels" ``(n,)`` from 1.
        """
        results = []
        for image in batch["images"]:
            (result,), _ = self.find(image[None])
            if self.protocol == "two_stage":
                kept = result["scores"] >= self.score_threshold
                result = {name: value[kept] for name, value in result.items()}
            results.append(result)
        return results

    def export_module(self) -> nn.Module:
        """The paper's network with suppression and all, for one canvas size: see `detection.deploy`.

        Returns:
            Canvases ``(B, 1, H, W)`` in; boxes ``(B, K, 4)``, scores and labels ``(B, K)`` out.

        Raises:
            ValueError: If the network is not the paper's.
        """
        size = (int(self.canvas_size[0]), int(self.canvas_size[1]))
        if isinstance(self.network, ProposalNetwork):
            return DeployedProposals(self.network, size, clip_moved=self.clip_moved)
        if isinstance(self.network, PaperFasterRCNN):
            return DeployedDetector(self.network, size)
        raise ValueError(f"export: network={self.hparams['network']!r} is not supported, network='paper' is")

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Two canvases of the size that the network was trained on, ``(2, 1, H, W)`` in [0, 1]."""
        height, width = self.canvas_size.tolist()
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(2, 1, height, width, generator=generator).to(self.device),)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the learning rate's schedule step by step."""
        # One call for all parameters: half a millisecond less per step. Lightning does not clip such gradients when
        # it trains in mixed precision.
        fused = self.device.type == "cpu" and not self.trainer.gradient_clip_val
        groups: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": fused}
        adam = {"betas": (self.momentum, self.beta2)}
        make: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
            "adam": (torch.optim.Adam, adam),
            "adamw": (torch.optim.AdamW, adam),
            "sgd": (torch.optim.SGD, {"momentum": self.momentum}),
        }
        kind, own = make[self.optimizer]
        optimizer = kind(self.network.parameters(), **groups, **own)
        factor = lr_factor(
            self.schedule,
            self.trainer.estimated_stepping_batches,
            warmup=self.warmup,
            milestones=self.lr_milestones,
            gamma=self.lr_gamma,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

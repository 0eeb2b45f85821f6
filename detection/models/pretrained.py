"""Start torchvision's detectors from trained weights: of the whole detector, or of its backbone."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn
from torchvision import models as tv_models
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.ops.misc import FrozenBatchNorm2d

from coordconv_apps.utils.distributed import is_main_process
from coordconv_apps.utils.errors import abbreviate_names, one_line
from coordconv_apps.utils.weight_files import State, load_fitting_state, part_of_state, read_published, read_state

logger = logging.getLogger(__name__)

EXACT_NORM = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Networks whose COCO_V1 weights in torchvision were trained without an epsilon in their batch norm layers."""

_OF_CLASSES = ("roi_heads.box_predictor.", "head.classification_head.")
"""Layers of torchvision's detectors whose sizes depend on the number of classes."""


def freeze_backbone(network: nn.Module, name: str, trainable_layers: float) -> None:
    """Freeze a backbone as torchvision's builders do for trained weights, in place.

    Its first layers do not train. Batch norm layers keep the statistics of the weights, except in networks whose name
    ends in ``_v2``.

    Args:
        network: A detector of torchvision with a feature pyramid.
        name: Its name.
        trainable_layers: Number of parts of the backbone that train, counted from its end: 0 to 5 for a ResNet, 0 to
            6 for a MobileNet.

    Raises:
        ValueError: The network has no feature pyramid, or the number is out of range.
    """
    where = f"network_args={{trainable_backbone_layers: {trainable_layers}}}"
    if not isinstance(network, FasterRCNN | RetinaNet | FCOS):
        raise ValueError(f"{where}: {name} trains all of its layers; leave it out")
    body = network.backbone.body
    parts: list[list[nn.Module]]
    if name.endswith(("resnet50_fpn", "resnet50_fpn_v2")):
        names = ("conv1 bn1", "layer1", "layer2", "layer3", "layer4")
        parts = [[body.get_submodule(layer) for layer in part.split()] for part in names]
    else:
        parts = _mobilenet_parts(body)
    if trainable_layers not in range(len(parts) + 1):
        raise ValueError(f"{where}: must be an integer in 0 to {len(parts)}")
    for part in parts[: len(parts) - int(trainable_layers)]:
        for layer in part:
            layer.requires_grad_(False)
    if not name.endswith("_v2"):
        _freeze_norms(body)


def _mobilenet_parts(body: nn.Module) -> list[list[nn.Module]]:
    """Return the blocks of a MobileNet in parts that each start where the resolution halves; the last is one layer."""
    blocks = list(body.children())
    halves = [any(isinstance(m, nn.Conv2d) and m.stride[0] > 1 for m in block.modules()) for block in blocks]
    starts = [0, *(i for i, half in enumerate(halves) if half and i > 0), len(blocks) - 1]
    return [blocks[start:end] for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True)]


def _freeze_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            _freeze_norms(child)


def load_pretrained(network: nn.Module, name: str, weights: str | None, weights_backbone: str | None) -> None:
    """Load trained weights into a detector of torchvision, with coordinates or without, in place.

    Layers that depend on the number of classes stay as they are if the weights have another number. Coordinate weights
    that the file lacks are set to zero: the network then computes what it computes without coordinates.

    Args:
        network: The detector.
        name: Its name.
        weights: For the whole detector: a file (a state dict, or a checkpoint of this package), or a name such as
            "DEFAULT" or "COCO_V1" of torchvision's weights, which are downloaded once.
        weights_backbone: For the backbone alone: a file of a classification network, or a name such as "DEFAULT" or
            "IMAGENET1K_V1".

    Raises:
        ValueError: There are no such weights, they do not fit, or they cannot be downloaded; both are given; or the
            network has no separate backbone.
    """
    if weights is not None and weights_backbone is not None:
        raise ValueError(f"weights_backbone={weights_backbone!r}: must be null with weights, which have a backbone")
    if weights is not None:
        state, is_published = _read(weights, "weights", tv_models.get_model_weights(name))
        _load(network, state, name, f"weights={weights!r}")
        if is_published and name in EXACT_NORM:
            for module in network.modules():
                if isinstance(module, FrozenBatchNorm2d):
                    module.eps = 0.0
    if weights_backbone is not None:
        body = getattr(getattr(network, "backbone", None), "body", None)
        if body is None:
            raise ValueError(f"weights_backbone={weights_backbone!r}: {name} has no separate backbone; choose weights")
        trunk = "resnet50" if "resnet50" in name else "mobilenet_v3_large"
        state, _ = _read(weights_backbone, "weights_backbone", tv_models.get_model_weights(trunk))
        _load(body, state, trunk, f"weights_backbone={weights_backbone!r}")


def _read(given: str, argument: str, published: type[tv_models.WeightsEnum]) -> tuple[State, bool]:
    """Return the state dict in a file or of published weights, and whether these are torchvision's COCO_V1."""
    named = {weights.name: weights for weights in published} | {"DEFAULT": published.DEFAULT}
    path = Path(given).expanduser()
    if path.is_file():
        is_published = any(w.name == "COCO_V1" and Path(w.url).name == path.name for w in published)
        return read_state(path, argument), is_published
    if given.upper() not in named:
        raise ValueError(f"{argument}={given!r}: no such file, and not one of {', '.join(sorted(named))}")
    weights = named[given.upper()]
    try:
        return read_published(weights), weights.name == "COCO_V1"
    except Exception as error:  # of the network, of a wrong checksum, or of a damaged file in the cache
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise ValueError(
            f"{argument}={given}: cannot be downloaded or read ({one_line(error)}); without a network, put"
            f" {weights.url} into {cache.parent}, or name a file"
        ) from error


def _load(network: nn.Module, state: State, name: str, where: str) -> None:
    """Load the weights of the network ``name``; layers of another number of classes stay as they are."""
    own = network.state_dict()
    state = part_of_state(state, own)
    new = [k for k in own if k.startswith(_OF_CLASSES) and k in state and own[k].shape != state[k].shape]
    # Other parts of the file are not needed, such as the last layer of a classifier; only coordinates would be missed.
    used = {k: value for k, value in state.items() if (k in own or k.endswith(".coord_weight")) and k not in new}
    load_fitting_state(network, used, name, where, new)
    if new and is_main_process():
        logger.warning("%s: new, since the number of classes differs: %s", where, abbreviate_names(new, 3))

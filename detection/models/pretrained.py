"""Start torchvision's detectors from trained weights: of the whole detector, or of its backbone."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.ops.misc import FrozenBatchNorm2d

from coordconv_apps.utils.errors import abbreviate_names, one_line

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

EXACT_NORM = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""Networks whose COCO_V1 weights in torchvision were trained without an epsilon in their batch norm layers."""

_CLASSIFIER = ("fc.", "classifier.")


def freeze_backbone(network: nn.Module, name: str, trainable_layers: int) -> None:
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
    parts = _resnet_parts(body) if name.endswith(("resnet50_fpn", "resnet50_fpn_v2")) else _mobilenet_parts(body)
    if not 0 <= trainable_layers <= len(parts):
        raise ValueError(f"{where}: must be in 0 to {len(parts)}")
    for part in parts[: len(parts) - trainable_layers]:
        for layer in part:
            layer.requires_grad_(False)
    if not name.endswith("_v2"):
        _freeze_norms(body)


def _resnet_parts(body: nn.Module) -> list[list[nn.Module]]:
    layers = dict(body.named_children())
    return [[layers["conv1"], layers["bn1"]], *([layers[f"layer{number}"]] for number in range(1, 5))]


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
        ValueError: There are no such weights, they do not fit, or they cannot be downloaded.
    """
    if weights is not None and weights_backbone is not None:
        raise ValueError(f"weights_backbone={weights_backbone!r}: must be null with weights, which have a backbone")
    if weights is not None:
        state, is_published = _read(weights, "weights", tv_models.get_model_weights(name))
        _load_detector(network, name, state, f"weights={weights!r}")
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
        _load_body(body, state, f"weights_backbone={weights_backbone!r}")


def _read(given: str, argument: str, published: type[tv_models.WeightsEnum]) -> tuple[State, bool]:
    """Return the state dict in a file or of published weights, and whether these are torchvision's COCO_V1."""
    named = {weights.name: weights for weights in published} | {"DEFAULT": published.DEFAULT}
    path = Path(given).expanduser()
    if given.upper() in named and not path.is_file():
        weights = named[given.upper()]
        try:
            return weights.get_state_dict(progress=False, check_hash=True), weights.name == "COCO_V1"
        except Exception as error:  # of the network, of a wrong checksum, or of a damaged file in the cache
            cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
            raise ValueError(
                f"{argument}={given}: cannot be downloaded or read ({one_line(error)}); without a network, put"
                f" {weights.url} into {cache.parent}, or name a file"
            ) from error
    if not path.is_file():
        raise ValueError(f"{argument}={given!r}: no such file, and not one of {', '.join(sorted(named))}")
    is_published = any(w.name == "COCO_V1" and Path(w.url).name == path.name for w in published)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:  # names the file
        raise
    except Exception as error:  # damaged files raise errors of many kinds
        raise ValueError(f"{argument}={given!r}: must be a file of weights that torch.load opens") from error
    while isinstance(content, dict) and (key := next((k for k in ("state_dict", "model") if k in content), None)):
        content = content[key]
    items = content.items() if isinstance(content, dict) else ()
    state = {str(k).removeprefix("network."): v for k, v in items if isinstance(v, Tensor)}
    if not state:
        raise ValueError(f"{argument}={given!r}: must hold a state dict")
    return state, is_published


def _load_detector(network: nn.Module, name: str, state: State, where: str) -> None:
    own = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    left_out = [key for key in state if key in own and key not in fitting]
    if unlike := [key for key in left_out if not _depends_on_classes(key)]:
        raise ValueError(f"{where}: must be of {name}; another shape: {abbreviate_names(unlike, 3)}")
    optional = (".coord_weight", ".num_batches_tracked")
    if missing := [key for key in own if key not in state and not key.endswith(optional)]:
        raise ValueError(f"{where}: must be of {name}; not in the file: {abbreviate_names(missing, 3)}")
    network.load_state_dict(fitting, strict=False)
    if left_out:
        logger.info("%s: new, since the number of classes differs: %s", where, abbreviate_names(left_out, 3))


def _depends_on_classes(key: str) -> bool:
    """Return whether a parameter of a torchvision detector has a size that depends on the number of classes."""
    return key.startswith(("roi_heads.box_predictor.", "head.classification_head."))


def _load_body(body: nn.Module, state: State, where: str) -> None:
    own = body.state_dict()
    trunk = {key.removeprefix("features."): v for key, v in state.items() if not key.startswith(_CLASSIFIER)}
    optional = (".coord_weight", ".num_batches_tracked")
    missing = [key for key in own if key not in trunk and not key.endswith(optional)]
    unlike = [key for key in own if key in trunk and own[key].shape != trunk[key].shape]
    if missing or unlike:
        named = abbreviate_names(missing + unlike, 3)
        raise ValueError(f"{where}: must be weights of this backbone; missing or of another shape: {named}")
    body.load_state_dict({key: value for key, value in trunk.items() if key in own}, strict=False)

"""Detection networks by name, with or without coordinates: the paper's, and torchvision's.

Nothing here knows Lightning. A network is built of plain convolutions first; `add_coords` then gives coordinates to
the chosen ones, so both arms of a comparison hold the same image weights at the same seed.
"""

from __future__ import annotations

import difflib
import inspect
import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models as tv_models
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from coordconv_apps import CoordConv2d, to_coordconv
from detection.paper import Padding, PaperFasterRCNN, ProposalNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchvision.models.detection.image_list import ImageList

    from coordconv_apps.nn.coords import Coords

PAPER_COORD_LAYERS = r"backbone\.conv1|rpn\.head\.shared|rpn\.head\.box_out"
"""Where the paper's CoordConv arm has coordinates: first backbone layer, the 3x3 of 32, last box layer."""


CoordInit = Literal["random", "zero"]
"""How coordinate weights start: drawn at random, as the paper's, or zero, as if there were none."""


def add_coords(network: nn.Module, coords: Coords, where: str = "paper", init: CoordInit = "random") -> None:
    """Give coordinates to layers of a network, in place.

    The weights that the layers have already stay as they are, so the two arms of a comparison differ by the
    coordinate weights alone. In the paper's network these are drawn as the authors draw them, He-normal for
    the concatenated input, and zero in the last box layer; unlike theirs, the image weights are not drawn
    anew for the larger fan-in.

    Args:
        network: Any network.
        coords: "none" leaves the network as it is.
        where: "paper" (the three layers the paper names; in a network that is not the paper's, the first),
            "first", "all", or a regular expression that the names of the layers match.
        init: "zero" starts the coordinate weights at zero: at first the network gives what it gives without them.

    Raises:
        ValueError: If no layer matches, or a layer that matches cannot have coordinates.
    """
    if coords == "none":
        return
    paper = isinstance(network, ProposalNetwork | PaperFasterRCNN)
    if where == "paper":
        where = PAPER_COORD_LAYERS if paper else "first"
    try:
        to_coordconv(network, where=where, coords=coords, init="zero" if paper or init == "zero" else "default")
    except (TypeError, ValueError) as error:
        raise ValueError(f"coord_layers: {error}") from error
    if not paper or init == "zero":
        return
    for name, layer in network.named_modules():
        if isinstance(layer, CoordConv2d) and not name.endswith("box_out"):
            fan_in = (layer.in_channels + len(coords)) * math.prod(layer.kernel_size)
            nn.init.normal_(layer.coord_weight, std=math.sqrt(2 / fan_in))


_FAMILIES: dict[str, type[nn.Module]] = {
    "fasterrcnn": FasterRCNN,
    "fcos": FCOS,
    "retinanet": RetinaNet,
    "ssd": SSD,
}


def torchvision_detectors() -> list[str]:
    """Names of torchvision's detection networks that are trained on boxes alone."""
    return [name for name in tv_models.list_models(module=tv_models.detection) if name.startswith(tuple(_FAMILIES))]


def build_network(
    network: str,
    *,
    protocol: Literal["two_stage", "proposals"] = "two_stage",
    num_classes: int = 10,
    padding: Padding = "same",
    network_args: Mapping[str, int | float] | None = None,
) -> nn.Module:
    """A plain network, without coordinates and without downloads.

    Args:
        network: "paper" or the name of a torchvision detection network.
        protocol: "proposals" gives the paper's network without its second stage.
        num_classes: Classes, background not counted.
        padding: Padding of the paper's backbone.
        network_args: Keyword arguments for torchvision's builder, such as ``min_size``.

    Returns:
        A `ProposalNetwork`, or a network with torchvision's detection interface. Torchvision's by name take
        pictures of three channels, the paper's of one.

    Raises:
        ValueError: If the name is unknown, or the protocol or arguments do not go with the network.
    """
    if network == "paper":
        if network_args:
            raise ValueError(f"network_args={dict(network_args)!r} is for torchvision networks, not network='paper'")
        if protocol == "proposals":
            return ProposalNetwork(padding=padding)
        return PaperFasterRCNN(num_classes, padding=padding)
    known = torchvision_detectors()
    if network not in known:
        close = difflib.get_close_matches(network, ["paper", *known], n=3, cutoff=0.4) or ["paper", *known]
        raise ValueError(f"network={network!r} is unknown; closest: {', '.join(close)}")
    if protocol == "proposals":
        raise ValueError(f"protocol='proposals' trains network='paper' only, not network={network!r}")
    args = dict(network_args or {})
    builder = tv_models.get_model_builder(network)
    allowed = _builder_arguments(network)
    if unknown := [name for name in args if name not in allowed]:
        raise ValueError(
            f"network_args={args!r}: {network} does not take {unknown[0]!r}; allowed: {', '.join(allowed)}"
        )
    built: nn.Module = builder(weights=None, weights_backbone=None, num_classes=num_classes + 1, **args)
    return built


def _builder_arguments(network: str) -> list[str]:
    """Names of the numbers that a torchvision detection network can be built with.

    Torchvision hands unknown arguments through to a transform that ignores them.
    """
    family = next(kind for name, kind in _FAMILIES.items() if network.startswith(name))
    parameters = {
        **inspect.signature(tv_models.get_model_builder(network)).parameters,
        **inspect.signature(family).parameters,
    }
    numbers = (int, float, bool)
    return sorted(
        {"trainable_backbone_layers"}
        | {n for n, p in parameters.items() if isinstance(p.default, numbers)} - {"progress", "num_classes"}
    )


@torch.no_grad()
def detect(network: nn.Module, images: Tensor) -> tuple[list[dict[str, Tensor]], list[Tensor] | None]:
    """Run a detection network with torchvision's interface, in evaluation mode.

    Args:
        network: Network that `build_network` made for protocol "two_stage".
        images: ``(B, C, H, W)`` in [0, 1]; one channel is repeated for a network by torchvision.

    Returns:
        Per image the final detections: "boxes" ``(n, 4)`` in pixels, "scores" ``(n,)``, "labels" ``(n,)``
        from 1. Then per image the region proposals ``(m, 4)`` in pixels that the second stage was given, best
        first, or None for a network without region proposals.
    """
    proposals: list[Tensor] = []

    def remember(_: nn.Module, args: tuple[ImageList, Any], output: tuple[list[Tensor], Any]) -> None:
        height, width = images.shape[-2:]
        for boxes, (inner_height, inner_width) in zip(output[0], args[0].image_sizes, strict=True):
            scale = (width / inner_width, height / inner_height) * 2
            proposals.append(boxes * boxes.new_tensor(scale))

    rpn = getattr(network, "rpn", None)
    handle = None if rpn is None else rpn.register_forward_hook(remember)
    try:
        detections: list[dict[str, Tensor]] = network(as_input(network, images))
    finally:
        if handle is not None:
            handle.remove()
    return detections, None if rpn is None else proposals


def as_input(network: nn.Module, images: Tensor) -> Tensor | list[Tensor]:
    """A batch ``(B, 1, H, W)`` as a network takes it: torchvision's want lists of three-channel pictures."""
    if isinstance(network, ProposalNetwork | PaperFasterRCNN):
        return images.contiguous(memory_format=torch.channels_last)
    return list(images.expand(-1, 3, -1, -1))

"""Give coordinates to the convolutions of a detection network."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from coordconv_apps import CoordConv2d, to_coordconv
from coordconv_apps.nn.coords import Coords
from detection.models.paper_faster_rcnn import PaperFasterRCNN, ProposalNetwork

PAPER_COORD_LAYERS = r"backbone\.conv1|rpn\.head\.shared|rpn\.head\.box_out"
"""Layers with coordinates in the paper's CoordConv arm: first backbone layer, 3x3 with 32 channels, last box layer."""

FPN_AND_HEAD = r"^backbone\.fpn\.inner_blocks\.|^rpn\.head\.conv\.0\.0$|^head\.\w+_head\.conv\.0(\.0)?$"
"""Layers with coordinates in PP-YOLO (Long et al., 2020, section 3.3): the 1x1 convolutions in the feature pyramid and
the first convolution of the head, in torchvision's networks. Both branches of a one-stage head have such a layer."""

CoordInit = Literal["random", "zero"]
"""Initial coordinate weights: random as in the paper, or zero (the network then starts as the plain one)."""


def add_coords(network: nn.Module, coords: Coords, where: str = "paper", init: CoordInit = "random") -> None:
    """Turn convolutions of a network into CoordConv layers, in place.

    The image weights stay as they are, so the two arms of a comparison differ by the coordinate weights alone. In the
    paper's networks, coordinate weights are drawn as the authors draw them: He-normal for the concatenated input, zero
    in the last box layer. Unlike the authors, this function does not redraw the image weights for the larger fan-in.

    Args:
        network: Any network.
        coords: "none" leaves the network as it is.
        where: "paper" (the three layers that the paper names; the first layer of a torchvision network), "first",
            "all", "fpn_and_head" (`FPN_AND_HEAD`, for torchvision's networks with a feature pyramid), or a regular
            expression that is searched for in layer names.
        init: Initial coordinate weights.

    Raises:
        ValueError: If no layer matches, or a matching layer cannot have coordinates.

    Example:
        >>> network = ProposalNetwork()
        >>> add_coords(network, "xy", where="box_out")
        >>> network.rpn["head"].box_out.coord_weight.shape
        torch.Size([36, 2, 1, 1])
    """
    if coords == "none":
        return
    paper = isinstance(network, ProposalNetwork | PaperFasterRCNN)
    if where == "paper":
        where = PAPER_COORD_LAYERS if paper else "first"
    if where == "fpn_and_head":
        if not isinstance(getattr(network, "backbone", None), BackboneWithFPN):
            raise ValueError("coord_layers=fpn_and_head: this network has no feature pyramid; choose first or all")
        where = FPN_AND_HEAD
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

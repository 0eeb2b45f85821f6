"""The paper's networks, layer by layer: a small Faster R-CNN, and its region proposal network alone.

They follow Liu et al. (2018, section 5) and the authors' code, with plain convolutions;
`detection.models.coord_layers` adds coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detection.boxes import NMS_IOU
from detection.models.roi_align import CanvasRoIAlign

Padding = Literal["same", "valid"]
"""Padding of the backbone: zeros ("same", 16 x 16 feature map for 64 x 64 canvases) or none ("valid", 13 x 13)."""

ANCHOR_SIZES = tuple((height, width) for height in (15.0, 20.0, 25.0) for width in (15.0, 20.0, 25.0))
"""The paper's nine anchors, (height, width) in pixels."""

STRIDE = 4
"""Pixels between neighbouring positions of the paper's feature map: two 2 x 2 poolings."""

FIRST_CENTRE = {"same": 2.0, "valid": 8.0}
"""Pixel at the centre of the feature map's first receptive field, per padding."""

_Sizes = list[tuple[int, int]]
_Dicts = list[dict[str, Tensor]]


class FixedAnchors(AnchorGenerator):  # type: ignore[misc]  # torchvision is untyped
    """Put the same explicit anchors at every position of one feature map, computed once per map size.

    Args:
        sizes: (height, width) of each anchor in pixels.
        stride: Pixels between the centres of neighbouring positions.
        first_centre: Pixel of the first position's centre, on both axes.
    """

    templates: Tensor

    def __init__(self, sizes: Sequence[tuple[float, float]], stride: int, first_centre: float) -> None:
        super().__init__(sizes=(tuple(range(len(sizes))),), aspect_ratios=((1.0,),))
        self.stride, self.first_centre = stride, first_centre
        boxes = [(-w / 2, -h / 2, w / 2, h / 2) for h, w in sizes]
        self.register_buffer("templates", torch.tensor(boxes), persistent=False)
        self._cache: tuple[tuple[int, int], Tensor] | None = None

    def grid(self, height: int, width: int) -> Tensor:
        """Return the anchors of ``height`` x ``width`` positions, float32 ``(height * width * k, 4)``."""
        if self._cache is not None:
            size, boxes = self._cache
            if size == (height, width) and boxes.device == self.templates.device:
                return boxes
        device = self.templates.device
        y = torch.arange(height, device=device) * self.stride + self.first_centre
        x = torch.arange(width, device=device) * self.stride + self.first_centre
        y, x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack((x, y, x, y), dim=-1)
        boxes = (centres[:, :, None] + self.templates).reshape(-1, 4)
        self._cache = ((height, width), boxes)
        return boxes

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return one tensor of anchors per image, the same for all (torchvision's interface)."""
        boxes = self.grid(*feature_maps[0].shape[-2:])
        return [boxes] * len(image_list.image_sizes)


class PaperBackbone(nn.Module):
    """Extract features: 5x5 with 32 channels, ReLU, 2x2 max pool, 5x5 with 64 channels, ReLU, 2x2 max pool."""

    out_channels = 64

    def __init__(self, padding: Padding = "valid") -> None:
        super().__init__()
        pad = 2 if padding == "same" else 0
        self.conv1 = nn.Conv2d(1, 32, 5, padding=pad)
        self.conv2 = nn.Conv2d(32, self.out_channels, 5, padding=pad)

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, 64, h, w)`` of canvases ``(B, 1, H, W)``; h = w = 16 or 13 for 64 x 64 canvases."""
        # ReLU is monotone: pooling first gives the same values at a quarter of the cost.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))
        return F.relu(F.max_pool2d(self.conv2(x), 2))


class PaperRPNHead(nn.Module):
    """Score and move k anchors: 3x3 with 32 channels, then a box branch (3x3, 1x1 to 4k) and a score branch (1x1).

    The paper has two scores per anchor, the logits of a softmax over (object, background). The softmax and its
    cross-entropy depend on their difference alone, so this head returns the difference, torchvision's objectness logit.
    """

    def __init__(self, in_channels: int, num_anchors: int = len(ANCHOR_SIZES), hidden: int = 32) -> None:
        super().__init__()
        self.shared = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.box_hidden = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.box_out = nn.Conv2d(hidden, 4 * num_anchors, 1)
        self.score = nn.Conv2d(hidden, 2 * num_anchors, 1)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return per feature map the logits ``(B, k, h, w)`` and deltas ``(B, 4k, h, w)`` (torchvision's interface)."""
        objectness, deltas = [], []
        for feature in features:
            x = F.relu(self.shared(feature))
            # Boxes stay float32 in mixed precision: bfloat16 has steps of a quarter pixel at 64.
            deltas.append(self.box_out(F.relu(self.box_hidden(x))).float())
            pair = self.score(x).float().unflatten(1, (-1, 2))
            objectness.append(pair[:, :, 0] - pair[:, :, 1])
        return objectness, deltas


class ProposalNetwork(nn.Module):
    """The paper's region proposal network: backbone, head and anchors, which is all that the authors' code trains.

    The state dict has the names of `PaperFasterRCNN`'s, without the second stage.
    """

    def __init__(self, padding: Padding = "valid") -> None:
        super().__init__()
        self.backbone = PaperBackbone(padding)
        self.rpn = nn.ModuleDict({"head": PaperRPNHead(self.backbone.out_channels)})
        self.anchors = FixedAnchors(ANCHOR_SIZES, STRIDE, FIRST_CENTRE[padding])
        init_like_paper(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score and move every anchor on canvases ``(B, 1, H, W)`` in [0, 1].

        Returns:
            Objectness logits ``(B, N)``, deltas ``(B, N, 4)`` as ``(dx, dy, dw, dh)``, both float32, and the
            anchors ``(N, 4)`` they belong to.
        """
        features = self.backbone(images)
        logits, deltas = flat_outputs(*self.rpn["head"]([features]))
        return logits, deltas, self.anchors.grid(*features.shape[-2:])


def flat_outputs(objectness: list[Tensor], deltas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Reshape outputs of `PaperRPNHead` for one map to the order of `FixedAnchors`: ``(B, N)`` and ``(B, N, 4)``."""
    return (
        objectness[0].permute(0, 2, 3, 1).flatten(1),
        deltas[0].unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3),
    )


class CanvasTransform(GeneralizedRCNNTransform):  # type: ignore[misc]  # as above
    """Stack canvases, but neither normalise nor resize them.

    Black stays 0, so the zero padding of the first layer looks like more black canvas and does not mark the border;
    that of later layers does. Torchvision's ``_skip_resize=True`` is not enough: torchvision 0.29 still resizes in
    evaluation.
    """

    def __init__(self) -> None:
        super().__init__(1, 1, [], [], size_divisible=1)

    def forward(self, images: Tensor | list[Tensor], targets: _Dicts | None = None) -> tuple[ImageList, _Dicts | None]:
        """Prepare a batch ``(B, 1, H, W)``, or a list of images ``(1, H, W)``, which are padded to one size."""
        if isinstance(images, Tensor):
            return ImageList(images, [(images.shape[-2], images.shape[-1])] * len(images)), targets
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return ImageList(self.batch_images(images, size_divisible=1), sizes), targets

    def postprocess(self, result: _Dicts, image_shapes: _Sizes, original_image_sizes: _Sizes) -> _Dicts:
        """Return the detections as they are: nothing was resized, so they are in canvas pixels."""
        return result


class BoxPredictor(FastRCNNPredictor):  # type: ignore[misc]  # as above
    """Torchvision's last layers of the second stage, with float32 outputs in mixed precision too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits ``(R, C + 1)`` and deltas ``(R, 4 * (C + 1))`` of hidden features ``(R, D)``."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class PaperFasterRCNN(FasterRCNN):  # type: ignore[misc]  # as above
    """Torchvision's FasterRCNN on the paper's backbone, anchors and head; ``num_classes`` excludes the background.

    The authors' code stops at the proposals; the second stage (5x5 RoIAlign, two dense layers of 128) is ours. Losses,
    matching and sampling are torchvision's. Torchvision's limits are made for photographs; here they suit canvases
    with a few small objects: fewer proposals and samples, and proposals are positive above the paper's IoU of 0.5.
    """

    def __init__(self, num_classes: int, padding: Padding = "same", max_detections: int = 20) -> None:
        backbone = PaperBackbone(padding)
        super().__init__(
            backbone,
            rpn_anchor_generator=FixedAnchors(ANCHOR_SIZES, STRIDE, FIRST_CENTRE[padding]),
            rpn_head=PaperRPNHead(backbone.out_channels),
            rpn_fg_iou_thresh=0.5,
            rpn_bg_iou_thresh=0.3,
            rpn_batch_size_per_image=64,
            rpn_pre_nms_top_n_train=300,
            rpn_pre_nms_top_n_test=max(600, 6 * max_detections),
            rpn_post_nms_top_n_train=100,
            rpn_post_nms_top_n_test=max(100, max_detections),
            rpn_nms_thresh=NMS_IOU,
            box_roi_pool=CanvasRoIAlign(5, FIRST_CENTRE[padding], STRIDE),
            box_head=TwoMLPHead(backbone.out_channels * 5 * 5, 128),
            box_predictor=BoxPredictor(128, num_classes + 1),
            box_batch_size_per_image=32,
            box_detections_per_img=max_detections,
        )
        self.transform = CanvasTransform()
        init_like_paper(self)


def init_like_paper(network: nn.Module) -> None:
    """Draw He-normal weights for every convolution and zero its bias; zero the last layer of the box branch."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if name.endswith("box_out"):
                nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

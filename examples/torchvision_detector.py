"""Convert a detector of torchvision, pretrained on COCO, to CoordConv and fine-tune it on classes of your own.

The example shows the order that matters: load the weights, convert, replace the head, and only then create the
optimizer. After the conversion the detector still finds exactly what it found before, since coordinate weights start
at 0. The data here are drawn squares whose class is the side of the image that they are on.

Run it from the clone, half a minute on two CPU cores. The first command downloads the weights (74 MB), the second takes
them from a file, and the third starts from random weights, to try the code:

    python examples/torchvision_detector.py
    python examples/torchvision_detector.py --weights fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth
    python examples/torchvision_detector.py --weights none
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, FasterRCNN_MobileNet_V3_Large_320_FPN_Weights
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn as build
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from coordconv_apps import coordconv_layers, to_coordconv

PRETRAINED = FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
CLASSES = ("background", "left square", "right square")
SIZE = 160


def load_detector(weights: str) -> FasterRCNN:
    """Return the detector with COCO's 91 classes: weights from a file, downloaded ("coco"), or random ("none").

    Raises:
        ValueError: The file cannot be read or does not fit, or the download failed.
    """
    # Nothing is downloaded here. The head trains on 64 boxes of each image instead of 512: there is one object in it.
    detector: FasterRCNN = build(weights=None, weights_backbone=None, min_size=SIZE, box_batch_size_per_image=64)
    if weights == "none":
        return detector
    try:
        if weights == "coco":
            state = PRETRAINED.get_state_dict(progress=True, check_hash=True, weights_only=True)
        else:
            state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    except OSError as error:
        advice = f"download {PRETRAINED.url} elsewhere and pass the file, or try the code with --weights none"
        raise ValueError(f"--weights {weights}: {error}; {advice}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"--weights {weights}: must be a file of tensors that torch.save wrote") from error
    try:
        detector.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"--weights {weights}: must be the state dict of {build.__name__} for COCO") from error
    return detector


def draw_batch(number: int, generator: torch.Generator) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Draw images ``(3, 160, 160)`` in [0, 1] with one square each, and torchvision's targets: boxes and labels."""
    images, targets = [], []
    for _ in range(number):
        side = int(torch.randint(24, 49, (), generator=generator))
        x, y = torch.randint(SIZE - side, (2,), generator=generator).tolist()
        image = 0.2 * torch.rand(3, SIZE, SIZE, generator=generator)
        image[:, y : y + side, x : x + side] += 0.7
        images.append(image)
        label = 1 if x + side / 2 < SIZE / 2 else 2
        targets.append({"boxes": torch.tensor([[x, y, x + side, y + side]]).float(), "labels": torch.tensor([label])})
    return images, targets


def fine_tune(detector: FasterRCNN, steps: int, batch_size: int, lr: float) -> list[float]:
    """Train the detector on drawn images; return the loss of each step."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=lr)
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # the statistics of a few images are worse than COCO's
    losses = []
    for _ in range(steps):
        loss = torch.stack(list(detector(*draw_batch(batch_size, generator)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(args: Sequence[str] | None = None) -> FasterRCNN:
    """Load, convert, check and fine-tune a detector; return it in evaluation mode."""
    parser = argparse.ArgumentParser(description="Convert a pretrained torchvision detector and fine-tune it.")
    parser.add_argument("--weights", default="coco", help="coco (downloads), none, or a file with a state dict")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.0005)
    parser.add_argument("--out", type=Path, help="file to save the fine-tuned state dict to")
    options = parser.parse_args(args)
    for name in ("steps", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    if not options.lr > 0:
        parser.error(f"--lr={options.lr}: must be above 0")
    if options.out and options.out.is_dir():
        parser.error(f"--out {options.out}: is a folder, must be a file")

    torch.manual_seed(0)
    try:
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)  # an error after the training would lose it
        detector = load_detector(options.weights)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    # 1. Convert: the first convolution and the FPN, whose maps the region proposals and the boxes are computed from.
    images, _ = draw_batch(2, torch.Generator().manual_seed(1))
    before = detector.eval()(images)
    to_coordconv(detector, where=r"^backbone\.body\.0\.0$|^backbone\.fpn\.layer_blocks", coords="xy")
    for old, new in zip(before, detector(images), strict=True):
        torch.testing.assert_close(new["boxes"], old["boxes"])
    print(f"converted without a change of outputs: {', '.join(coordconv_layers(detector))}")

    # 2. Replace the head: COCO's classes become your own.
    head = detector.roi_heads.box_predictor.cls_score
    assert isinstance(head, nn.Linear)
    detector.roi_heads.box_predictor = FastRCNNPredictor(head.in_features, len(CLASSES))

    # 3. Fine-tune. The optimizer is created last, so that it has the coordinate weights and the new head.
    losses = fine_tune(detector, options.steps, options.batch_size, options.lr)
    print(f"loss {losses[0]:.3f} in the first step, {losses[-1]:.3f} in step {len(losses)}")
    if options.out:
        # To load it again: build the detector, convert it and replace the head as above, then load_state_dict.
        torch.save(detector.state_dict(), options.out)
        print(f"saved {options.out}")

    image, target = draw_batch(1, torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = detector.eval()(image)[0]
    print(f"a {CLASSES[int(target[0]['labels'])]} at {target[0]['boxes'][0].int().tolist()}; found:")
    for box, label, score in list(zip(found["boxes"], found["labels"], found["scores"], strict=True))[:3]:
        print(f"  {CLASSES[int(label)]} {score.item():.2f} at {box.round().int().tolist()}")
    if not len(found["boxes"]):
        print("  nothing; pretrained weights or more steps are needed")
    return detector


if __name__ == "__main__":
    main()

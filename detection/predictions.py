"""``predict``: write the boxes on the user's own images, as annotated pictures and as COCO JSON."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype

from coordconv_apps.data.image_decoding import decode_image
from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.predictions import PredictionWriter
from coordconv_apps.utils.files import atomic_write, cut_file_name
from detection.batches import ImageBatch
from detection.boxes import Detections, clip_detections
from detection.gray_images import to_colour
from detection.pictures import draw_boxes
from detection.tasks import DetectionTask

FOLDER = "predictions"

_SHOWN_SIDE = 480
"""Small images are enlarged by a whole number until the longer side has at least this many pixels."""


class _ImageFound(NamedTuple):
    image: dict[str, Any]  # of COCO's "images"
    annotations: list[dict[str, Any]]  # of COCO's "annotations", without "id", best first


class DetectionWriter(PredictionWriter[_ImageFound]):
    """Write ``predictions/<index>_<name>.png``, ``detections.json`` and ``results.json`` to the run's folder.

    ``detections.json`` is a COCO data set with scores: "images" (id, file_name, width, height), "categories" (id, name)
    and "annotations" (id, image_id, category_id, bbox as x, y, width, height in pixels of the image, area, iscrowd,
    score). ``results.json`` is COCO's list of results, which ``pycocotools`` reads with ``COCO.loadRes``. Category ids
    are those of the COCO data set that the network was trained on, else labels from 1. `RegionProposals` has one
    category, "object".
    """

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[Detections],
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the images of a batch, and collect their detections for the JSON file."""
        assert isinstance(pl_module, DetectionTask)
        parts = (batch["indices"], batch["paths"], batch["images"], outputs)
        for index, path, seen, detections in zip(*parts, strict=True):
            try:
                image = _as_shown(seen, Path(path))
            except ValueError as error:  # the network has just seen it
                warnings.warn(f"{error} any more: left out", stacklevel=2)
                continue
            height, width = image.shape[-2:]
            detections = clip_detections(detections, width, height)
            entry = {"id": index, "file_name": path, "width": width, "height": height}
            self.collected.append(_ImageFound(entry, coco_annotations(detections, index, pl_module.category_ids)))
            drawn = draw_boxes(
                image,
                found=detections["boxes"],
                found_text=pl_module.captions(detections, pl_module.class_names),
                zoom=max(1, math.ceil(_SHOWN_SIDE / max(height, width))),
            )
            name = f"{index:04d}_{cut_file_name(Path(path).stem, 200)}.png"
            with atomic_write(run_dir(trainer) / FOLDER / name, "wb") as file:
                drawn.save(file, format="PNG")

    def write(self, trainer: Trainer, task: LightningModule, items: list[_ImageFound], suffix: str) -> None:
        """Write the JSON files, and print where they are."""
        assert isinstance(task, DetectionTask)
        found = sorted(items, key=lambda one: one.image["id"])
        annotations = [annotation for one in found for annotation in one.annotations]
        categories = zip(task.category_ids, task.class_names, strict=True)
        content = {
            "images": [one.image for one in found],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [{"id": number} | a for number, a in enumerate(annotations, start=1)],
        }
        results = [{key: a[key] for key in ("image_id", "category_id", "bbox", "score")} for a in annotations]
        folder = run_dir(trainer) / FOLDER
        path = folder / f"detections{suffix}.json"
        for place, written in ((path, content), (folder / f"results{suffix}.json", results)):
            with atomic_write(place) as file:
                json.dump(written, file, indent=1)
        print(f"{len(annotations)} detections in {len(found)} images: {path} and the pictures beside it")


def _as_shown(seen: Tensor, path: Path) -> Tensor:
    """Return an image as uint8 ``(3, H, W)``; networks for gray images see it inverted or padded."""
    if len(seen) == 3:
        colour: Tensor = to_dtype(seen.cpu(), torch.uint8, scale=True)
        return colour
    decoded: Tensor = pil_to_tensor(decode_image(path, to_colour))
    return decoded


def coco_annotations(detections: Detections, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the detections of an image as COCO annotations, without "id"; ``category_ids`` are those of the labels."""
    boxes, scores, labels = (detections[key].tolist() for key in ("boxes", "scores", "labels"))
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "area": round((x2 - x1) * (y2 - y1), 2),
            "iscrowd": 0,
            "score": round(score, 4),
        }
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True)
    ]

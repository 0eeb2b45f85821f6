"""``predict``: boxes on the user's own pictures, as annotated pictures and as COCO-format JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image, ImageOps
from torchvision.ops import clip_boxes_to_image

from coordconv_apps.runs.folder import run_dir
from coordconv_apps.utils.files import atomic_write
from detection.pictures import describe, draw_boxes
from detection.read import to_gray
from detection.task import DetectionTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from detection.data import PictureBatch

FOLDER, JSON_NAME = "predictions", "detections.json"

_SHOWN_SIDE = 480
"""Small pictures are enlarged by a whole number until their longer side has about as many pixels."""


def _within(result: dict[str, Tensor], width: int, height: int) -> dict[str, Tensor]:
    """What of the detections lies within a picture: the network has seen ground around a very small one."""
    boxes = clip_boxes_to_image(result["boxes"], (height, width))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {name: value[inside] for name, value in {**result, "boxes": boxes}.items()}


class PredictionWriter(Callback):
    """Writes ``predictions/<number>_<name>.png`` and ``predictions/detections.json`` to the run's folder.

    The JSON is a COCO data set with scores: "images" (id, file_name, width, height), "categories" (id from 1,
    name) and "annotations" (id, image_id, category_id, bbox as x, y, width, height in pixels of the picture,
    area, iscrowd, score). Under protocol "proposals" there is one category, "object".
    """

    def __init__(self) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the pictures of an earlier prediction."""
        self._images, self._annotations = [], []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[dict[str, Tensor]],
        batch: PictureBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the pictures of a batch and note their detections."""
        if not isinstance(pl_module, DetectionTask):
            raise TypeError(f"{type(pl_module).__name__} is not the task of detection")
        names = category_names(pl_module, trainer)
        for number, path, result in zip(batch["numbers"], batch["paths"], outputs, strict=True):
            picture = ImageOps.exif_transpose(Image.open(path))
            if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion cuts off at 255
                picture = Image.fromarray(to_gray(picture))
            picture = picture.convert("RGB")
            result = _within(result, *picture.size)
            self._images.append({"id": number, "file_name": path, "width": picture.width, "height": picture.height})
            self._annotations += coco_annotations(result, number)
            boxes, text = describe(pl_module, result, names)
            zoom = max(1, math.ceil(_SHOWN_SIDE / max(picture.size)))
            drawn = draw_boxes(picture, found=boxes, found_text=text, zoom=zoom)
            with atomic_write(self._folder(trainer) / f"{number:04d}_{Path(path).stem}.png", "wb") as file:
                drawn.save(file, format="PNG")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the JSON, of the pictures of all processes, and say where it is."""
        gathered: list[Any] = [None] * trainer.world_size
        own = (self._images, self._annotations)
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(gathered, own)
        else:
            gathered = [own]
        if not trainer.is_global_zero:
            return
        images = sorted((image for part, _ in gathered for image in part), key=lambda image: image["id"])
        annotations = sorted((a for _, part in gathered for a in part), key=lambda a: (a["image_id"], -a["score"]))
        assert isinstance(pl_module, DetectionTask)  # on_predict_batch_end has checked it
        content = {
            "images": images,
            "categories": [
                {"id": number, "name": name} for number, name in enumerate(category_names(pl_module, trainer), start=1)
            ],
            "annotations": [{"id": number} | a for number, a in enumerate(annotations, start=1)],
        }
        path = self._folder(trainer) / JSON_NAME
        with atomic_write(path) as file:
            json.dump(content, file, indent=1)
        print(f"{len(annotations)} detections in {len(images)} pictures: {path} and the pictures beside it")

    @staticmethod
    def _folder(trainer: Trainer) -> Path:
        return run_dir(trainer) / FOLDER


def category_names(task: DetectionTask, trainer: Trainer) -> Sequence[str]:
    """Names of what can be found: the data's classes, or "object" for proposals."""
    if task.protocol == "proposals":
        return ("object",)
    names: Sequence[str] = trainer.datamodule.class_names  # type: ignore[attr-defined]  # set by the trainer
    return names


def coco_annotations(result: dict[str, Tensor], image_id: int) -> list[dict[str, Any]]:
    """Detections in COCO's terms.

    Args:
        result: "boxes" ``(n, 4)`` as ``(x1, y1, x2, y2)``, "scores" and "labels" ``(n,)``.
        image_id: Number of the picture.

    Returns:
        One dictionary per detection, without "id".
    """
    annotations = []
    boxes, scores, labels = (result[key].tolist() for key in ("boxes", "scores", "labels"))
    for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True):
        bbox = [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
        annotations.append(
            {
                "image_id": image_id,
                "category_id": label,
                "bbox": bbox,
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": 0,
                "score": round(score, 4),
            }
        )
    return annotations

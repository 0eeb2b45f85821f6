"""``predict``: a table of the most probable classes of each picture."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback

from classification.metrics import TOP
from classification.pictures import all_names
from coordconv_apps.runs.folder import run_dir
from coordconv_apps.utils.files import atomic_write

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from classification.datasets import ImageBatch
    from classification.task import Prediction

NAME = "predictions.csv"

Row = tuple[int, list[str]]


class PredictionWriter(Callback):
    """Writes ``predictions.csv`` to the run's folder: a line for each picture, in the order of their names.

    Its columns are ``picture``, the file, and ``class_1, score_1`` to ``class_5, score_5``: the names of the most
    probable classes, the most probable first, and their probabilities, in [0, 1]. There are fewer of them with fewer
    classes.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the pictures of an earlier prediction."""
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Notes what is seen in a batch."""
        number = outputs.probabilities.shape[1]
        names = all_names(getattr(pl_module, "class_names", None) or [], number)
        scores, labels = outputs.probabilities.topk(min(TOP, number), dim=1)
        of_images = zip(outputs.indices.tolist(), outputs.paths, scores.tolist(), labels.tolist(), strict=True)
        for index, path, best_scores, best in of_images:
            pairs = zip(best, best_scores, strict=True)
            self._rows.append((index, [path, *(text for i, p in pairs for text in (names[i], f"{p:.6f}"))]))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the table, of the pictures of all processes, and says where it is."""
        gathered = [self._rows] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(gathered, self._rows)
        self._rows = []
        if not trainer.is_global_zero:
            return
        rows = [row for _, row in sorted(row for of_process in gathered for row in of_process)]
        columns = (max((len(row) for row in rows), default=1) - 1) // 2
        header = [f"{name}_{place}" for place in range(1, columns + 1) for name in ("class", "score")]
        path = run_dir(trainer) / NAME
        with atomic_write(path) as file:
            csv.writer(file, lineterminator="\n").writerows([["picture", *header], *map(_as_texts, rows)])
        print(f"{len(rows)} pictures classified: {path}")


def _as_texts(cells: list[str]) -> list[str]:
    """Names of files and folders need not be text, which a table is."""
    return [os.fsencode(cell).decode("utf-8", "backslashreplace") for cell in cells]

"""Write the predictions to a CSV file: the most probable classes of each image."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING

from classification.metrics import TOP_K
from classification.tasks import Classifier, Prediction
from coordconv_apps.runs.folder import run_dir
from coordconv_apps.training.predictions import PredictionWriter
from coordconv_apps.utils.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningModule, Trainer

    from classification.datasets import ImageBatch

Row = tuple[int, list[str]]  # the index of an image, and the cells of its line


class ClassificationPredictionWriter(PredictionWriter[Row]):
    """Write ``predictions.csv`` to the run's folder: one line for each image, in the order of the file names.

    The columns are ``picture``, the file, and ``class_1, score_1`` to ``class_5, score_5``: the names of the five most
    probable classes in descending order, and their probabilities in [0, 1]. With fewer classes there are fewer columns.
    """

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the predictions of a batch."""
        assert isinstance(pl_module, Classifier)
        number = outputs.probabilities.shape[1]
        names = complete_names(pl_module.class_names or [], number)
        scores, labels = outputs.probabilities.topk(min(TOP_K, number), dim=1)
        images = zip(outputs.indices.tolist(), outputs.paths, scores.tolist(), labels.tolist(), strict=True)
        for index, path, best_scores, best in images:
            pairs = zip(best, best_scores, strict=True)
            self.collected.append((index, [path, *(text for i, p in pairs for text in (names[i], f"{p:.6f}"))]))

    def write(self, trainer: Trainer, task: LightningModule, items: list[Row], suffix: str) -> None:
        """Write the table, and print the path of the file."""
        rows = [row for _, row in sorted(items)]
        columns = (max((len(row) for row in rows), default=1) - 1) // 2
        header = ["picture", *(f"{name}_{place}" for place in range(1, columns + 1) for name in ("class", "score"))]
        # File names may have bytes that are not text.
        lines = [[os.fsencode(cell).decode("utf-8", "backslashreplace") for cell in row] for row in rows]
        path = run_dir(trainer) / f"predictions{suffix}.csv"
        with atomic_write(path) as file:
            csv.writer(file, lineterminator="\n").writerows([header, *lines])
        print(f"{len(rows)} images classified: {path}")


def complete_names(names: Sequence[str], number: int) -> list[str]:
    """Name each class of a network, which may have more classes than there are names: the others are numbered.

    >>> complete_names(["cat", "dog"], 3)
    ['cat', 'dog', '2']
    """
    return [names[label] if label < len(names) else str(label) for label in range(number)]

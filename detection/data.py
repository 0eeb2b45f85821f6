"""Data of the detection application: canvases to train and evaluate on, the user's own images to predict on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from coordconv_apps.data.downloads import data_root
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.data.splits import SPLITS, SPLITS_OF_STAGE, Split
from coordconv_apps.utils.argument_checks import POSITIVE_INT, check_ranges, one_of, optional_path
from detection.base_data_module import DetectionDataModule
from detection.batches import DetectionBatch, ImageBatch
from detection.canvas import HALF_NAMES, Canvases, CanvasSettings, LabelBy, TrueBoxes, draw_canvases
from detection.datasets import CanvasDataset, ImageFileDataset
from detection.glyph_sources import Source, check_source, fetch_mnist, load_class_names, load_glyphs
from detection.gray_images import Ink, network_input, read_gray


class DetectionData(DetectionDataModule):
    """Canvases of glyphs, as in the paper's object detection on MNIST: 9,000 to train on, 1,000 to test on.

    Training, validation and test canvases share no glyph, whatever the seed.

    Args:
        source: Source of the glyphs: "uci" (digits that come with scikit-learn), "mnist" (downloaded if missing),
            "folder" or "idx" (your own, see glyphs).
        root: Folder of data sets, which contains MNIST/raw. Default: the variable COORDCONV_DATA, else ./data.
        glyphs: Your own glyphs. With source=folder, a folder with a subfolder of images for each class; with
            source=idx, an IDX file of images.
        glyph_labels: With source=idx, the IDX file of labels.
        ink: Whether the ink in your own images (of glyphs, or to predict on) is bright or dark; "auto" decides by the
            border of each image.
        num_train: Number of training canvases.
        num_val: Number of validation canvases.
        num_test: Number of test canvases.
        canvas_size: Side of the canvas that glyphs are placed on, in pixels.
        crop: Side of the central square that is kept, in pixels; null keeps the whole canvas.
        digits: Number of glyphs placed on each canvas.
        min_size: Smallest height and width of a placed glyph, in pixels.
        max_size: Largest height and width of a placed glyph, in pixels.
        min_visible: A glyph that the border cuts counts as an object if at least this many pixels of both sides of its
            box are visible.
        whole_pixels: Whether sizes and positions of glyphs are whole numbers.
        true_boxes: "cut": boxes end at the border. "whole": boxes of the same glyphs may reach beyond it. "all": whole
            boxes of all glyphs, also of invisible ones beyond the border, as in the authors' data.
        label_by: What decides the class of an object: its "glyph", or the "half" of the canvas, upper or lower, that
            contains the centre of its box, whatever the glyph.
        predict_images: Input of predict: an image of any size and format, or a folder of images with its subfolders, of
            which unreadable ones are left out.
        batch_size: Canvases or images per batch, on each process.
        num_workers: Worker processes that load batches, on each process; 0 loads in the main process.
        seed: Seed of the canvases and of the training order. The split of the glyphs does not depend on it.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    channels: ClassVar[int] = 1

    def __init__(
        self,
        source: Source = "uci",
        root: str | None = None,
        glyphs: str | None = None,
        glyph_labels: str | None = None,
        ink: Ink = "auto",
        num_train: int = 9000,
        num_val: int = 1000,
        num_test: int = 1000,
        canvas_size: int = 120,
        crop: int | None = 64,
        digits: int = 5,
        min_size: int = 15,
        max_size: int = 25,
        min_visible: float = 1.0,
        whole_pixels: bool = False,
        true_boxes: TrueBoxes = "cut",
        label_by: LabelBy = "glyph",
        predict_images: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(predict_images, batch_size, num_workers, seed)
        counts = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        check_ranges(counts, dict.fromkeys(counts, POSITIVE_INT), "data")
        self.source: Source = source
        self.root = data_root(root)
        self.glyphs = optional_path(glyphs, "data.glyphs")
        self.glyph_labels = optional_path(glyph_labels, "data.glyph_labels")
        check_source(source, self.glyphs, self.glyph_labels)
        check_ranges({"ink": ink}, {"ink": one_of(Ink)}, "data")
        self.ink: Ink = ink
        self.counts: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self.settings = CanvasSettings(
            canvas_size, crop, digits, min_size, max_size, min_visible, whole_pixels, true_boxes, label_by
        )
        self._canvases: dict[Split, Canvases] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; label ``i`` of a box has name ``i - 1``."""
        if self.settings.label_by == "half":
            return HALF_NAMES
        return load_class_names(self.glyphs, self.glyph_labels)

    @property
    def image_size(self) -> int:
        """Side of the canvases in pixels."""
        return self.settings.image_size

    def most_objects(self, split: Split) -> int:
        """Return the largest number of objects on a canvas of a split."""
        return self.canvases(split).most_objects

    def canvases(self, split: Split) -> Canvases:
        """Return the canvases of a split, which are drawn at the first call."""
        self._draw([split])
        return self._canvases[split]

    def dataset(self, split: Split) -> CanvasDataset:
        """Return the canvases of a split."""
        return CanvasDataset(self.canvases(split))

    def prepare_data(self) -> None:
        """Download MNIST, if it is the source and missing."""
        if self.source == "mnist" and not (self.trainer is not None and self.trainer.predicting):
            fetch_mnist(self.root)

    def setup(self, stage: str) -> None:
        """Draw the canvases, or find the images, that a stage needs."""
        if stage == "predict":
            self.find_predict_images(self.predict_images, "skip", self._read_ink)
            return
        self._draw(SPLITS_OF_STAGE[stage])

    def _draw(self, splits: Sequence[Split]) -> None:
        missing = [split for split in splits if split not in self._canvases]
        if not missing:
            return
        loaded = load_glyphs(
            self.source,
            missing,
            root=self.root,
            glyphs=self.glyphs,
            glyph_labels=self.glyph_labels,
            ink=self.ink,
            max_side=self.settings.max_size,
        )
        for split in missing:
            rng = np.random.default_rng([self.seed, SPLITS.index(split)])
            self._canvases[split] = draw_canvases(loaded[split], self.counts[split], self.settings, rng)

    def _read_ink(self, path: Path) -> Tensor:
        return torch.from_numpy(read_gray(path, self.ink))

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the training canvases."""
        return self._train_loader(self.dataset("train"), identity_collate)

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of the images to predict on, float32 ``(1, H, W)`` in [0, 1], padded if they are small."""
        assert self.predict_files is not None
        dataset = ImageFileDataset(self.predict_files, network_input)
        return self._eval_loader(dataset, identity_collate)

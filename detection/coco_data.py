"""Data of one's own in COCO's format: folders of images with an annotation file for each split."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal

from PIL.ExifTags import Base
from torch.utils.data import DataLoader

from coordconv_apps.data.image_decoding import open_file
from coordconv_apps.data.image_files import MAX_CHECKED, OnBadImage, check_folder
from coordconv_apps.data.loaders import identity_collate
from coordconv_apps.data.splits import SPLITS, SPLITS_OF_STAGE, Split
from coordconv_apps.utils.argument_checks import NON_NEGATIVE, Allowed, check_ranges, one_of, optional_path
from coordconv_apps.utils.errors import abbreviate_names, one_line
from detection.augmentation import Augmentation
from detection.base_data_module import DetectionDataModule
from detection.batches import DetectionBatch, ImageBatch
from detection.coco_files import CocoAnnotations, check_same_categories, read_coco
from detection.datasets import (
    CocoEvaluation,
    CocoImages,
    CocoTraining,
    ImageFileDataset,
    aspect_ratio_groups,
    collate_samples,
    to_unit,
)

_CHECK_THREADS = 8
_ALLOWED: dict[str, Allowed] = {
    "augmentation": one_of(Augmentation),
    "on_bad_image": one_of(OnBadImage),
    "aspect_ratio_group_factor": NON_NEGATIVE,
}


class CocoData(DetectionDataModule):
    """Images of your own with boxes in COCO's format, chosen with ``data.source=coco``.

    Args:
        source: Source of the images: "coco" for this class.
        train_annotations: Annotation file of the training images, in COCO's format.
        val_annotations: Annotation file of the validation images.
        test_annotations: Annotation file of the test images, which predict uses too unless predict_images is given; by
            default that of the validation images.
        train_images: Folder that the file names in train_annotations are relative to; by default the folder of that
            file.
        val_images: The same for val_annotations.
        test_images: The same for test_annotations.
        augmentation: Augmentation of training images, as in torchvision's references: "none", "hflip", "multiscale",
            "ssd" or "ssdlite". All but "none" flip half of the images, left to right.
        aspect_ratio_group_factor: Batches have images of similar aspect ratio, as in torchvision's references; this is
            half the number of groups between 1/2 and 2. 0 turns it off.
        on_bad_image: What to do with images of the annotation files that are missing or cannot be read: "error" stops
            the run, "skip" continues without them.
        predict_images: Input of predict: an image, or a folder of images with its subfolders, of which unreadable ones
            are left out. By default the test images, whose ids the predictions then have.
        batch_size: Images per batch, on each process.
        num_workers: Worker processes that load batches, on each process; 0 loads in the main process.
        seed: Seed of the order of training images and of their augmentation.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    channels: ClassVar[int] = 3

    def __init__(
        self,
        source: Literal["coco"] = "coco",
        train_annotations: str | None = None,
        val_annotations: str | None = None,
        test_annotations: str | None = None,
        train_images: str | None = None,
        val_images: str | None = None,
        test_images: str | None = None,
        augmentation: Augmentation = "hflip",
        aspect_ratio_group_factor: int = 3,
        on_bad_image: OnBadImage = "error",
        predict_images: str | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(predict_images, batch_size, num_workers, seed)
        self.source = source
        if test_annotations is None:
            if test_images is not None:
                raise ValueError(f"data.test_images={test_images}: must be null without data.test_annotations")
            test_annotations, test_images = val_annotations, val_images
        given = {"train": train_annotations, "val": val_annotations, "test": test_annotations}
        folders = {"train": train_images, "val": val_images, "test": test_images}
        self.annotation_files = {name: optional_path(p, f"data.{name}_annotations") for name, p in given.items()}
        self.image_folders = {name: optional_path(p, f"data.{name}_images") for name, p in folders.items()}
        self.augmentation: Augmentation = augmentation
        self.aspect_ratio_group_factor = aspect_ratio_group_factor
        self.on_bad_image: OnBadImage = on_bad_image
        check_ranges(vars(self), _ALLOWED, "data")
        self._images: dict[Split, CocoImages] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their ids; label ``i`` of a box has name ``i - 1``."""
        return tuple(self._categories().values())

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Ids of the categories, in the order of the labels."""
        return tuple(self._categories())

    def skipped_images(self) -> set[str] | None:
        """Return the paths of the images that could not be read so far; None without any to skip."""
        to_predict = super().skipped_images()
        if self.on_bad_image == "error":
            return to_predict
        return self._left_out.union(to_predict or (), *(images.bad for images in self._images.values()))

    def _categories(self) -> dict[int, str]:
        known = next((split for split in SPLITS if self.annotation_files[split] is not None), SPLITS[0])
        return self._annotations(known).categories

    def _annotations(self, split: Split) -> CocoAnnotations:
        path, argument = self.annotation_files[split], f"data.{split}_annotations"
        if path is None:
            raise ValueError(f"{argument}=null: must be an annotation file in COCO's format, such as {split}.json")
        return read_coco(path, argument)

    def images(self, split: Split) -> CocoImages:
        """Return the images of a split; their files are looked for, and faults are reported, at the first call."""
        if split not in self._images:
            if split == "test" and all(of["test"] == of["val"] for of in (self.annotation_files, self.image_folders)):
                return self.images("val")
            annotations, argument = self._annotations(split), f"data.{split}_images"
            if split != "train" and self.annotation_files["train"] is not None:
                check_same_categories(self._annotations("train"), annotations, f"data.{split}_annotations")
            path = self.annotation_files[split]
            assert path is not None
            folder = self.image_folders[split] or path.parent
            check_folder(folder, argument)
            annotations.check_inside(folder, f"data.{split}_annotations={str(path)!r}", argument)
            for note in annotations.notes:
                self.print_once(note)
            annotations = self._readable(annotations, folder, argument)
            self._images[split] = CocoImages(annotations, folder, argument, self.on_bad_image)
        return self._images[split]

    def _readable(self, annotations: CocoAnnotations, folder: Path, argument: str) -> CocoAnnotations:
        """Return the annotations of the images that can be opened; report the others, or raise `ValueError`."""

        def fault(index: int) -> str | None:
            path = folder / annotations.file_name(index)
            if not path.is_file():
                return "no such file"
            if len(annotations) > MAX_CHECKED:
                return None
            height, width = annotations.sizes[index].tolist()
            try:
                with open_file(path) as opened:
                    is_turned = opened.size == (height, width) and opened.getexif().get(Base.Orientation, 1) >= 5
                    fits = opened.size == (width, height) or is_turned
                    return None if fits else f"{opened.width} x {opened.height} pixels, not {width} x {height}"
            except Exception as error:  # decoders raise almost anything
                return one_line(error)

        with ThreadPoolExecutor(_CHECK_THREADS) as pool:
            faults = {i: text for i, text in enumerate(pool.map(fault, range(len(annotations)))) if text is not None}
        if not faults:
            return annotations
        listed = abbreviate_names([f"{annotations.file_name(i)} ({text})" for i, text in faults.items()])
        message = f"{argument}={str(folder)!r}: {len(faults)} of {len(annotations)} images cannot be used: {listed}"
        if len(faults) == len(annotations):
            raise ValueError(message)
        if self.on_bad_image == "error":
            raise ValueError(f"{message}; data.on_bad_image=skip continues without them")
        self.print_once(f"{message}; left out")
        self._left_out |= {str(folder / annotations.file_name(i)) for i in faults}
        return annotations.select([i for i in range(len(annotations)) if i not in faults])

    def most_objects(self, split: Split) -> int:
        """Return the largest number of objects in an image of a split."""
        return self.images(split).annotations.most_objects

    def dataset(self, split: Split) -> CocoEvaluation:
        """Return the images of a split as they are."""
        return CocoEvaluation(self.images(split))

    def setup(self, stage: str) -> None:
        """Read the annotations and find the images that a stage needs."""
        if stage == "predict":
            if self.predict_images is not None or self.annotation_files["test"] is None:
                self.find_predict_images(self.predict_images, "skip")
            else:
                self.predict_files = self.images("test")
            return
        for split in SPLITS if stage == "fit" else SPLITS_OF_STAGE[stage]:  # a training draws pictures of test images
            self.images(split)

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        """Return the loader of the training images."""
        images, factor = self.images("train"), self.aspect_ratio_group_factor
        groups = aspect_ratio_groups(images.annotations.sizes, factor) if factor else None
        dataset = CocoTraining(images, self.augmentation)
        return self._train_loader(dataset, collate_samples, random_samples=True, groups=groups)

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Return the loader of the images to predict on: your own, or the test images with their ids."""
        files = self.predict_files
        assert files is not None
        ids = files.annotations.image_ids if isinstance(files, CocoImages) else None
        return self._eval_loader(ImageFileDataset(files, to_unit, ids), identity_collate)

"""Data of the classification application: class folders or sets of libraries, to train and evaluate on, to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from classification.bundled import NUM_CLASSES, HeldSet, HeldSource, fetch_cifar, imagenet_names, load_held
from classification.checks import check_data
from classification.datasets import (
    BatchedTrainDataset,
    EvalDataset,
    ImageBatch,
    LabelledBatch,
    Pictures,
    PredictDataset,
    TrainDataset,
    concatenate,
)
from classification.folder import FolderSource, Split
from classification.mixing import Mixed, mix_batch
from classification.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    Augmentation,
    Crop,
    EvalTransform,
    TrainTransform,
    Triple,
    to_network,
    to_pixels,
)
from coordconv_apps.data.collate import identity_collate
from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.data.downloads import data_root
from coordconv_apps.data.image_files import ImageFiles, OnBadImage, find_images
from coordconv_apps.data.loaders import TrainLoader
from coordconv_apps.utils.seeds import mix_seeds

Source = Literal["folder", "digits", "cifar10", "cifar100", "imagenet"]


class ClassificationData(DataModule):
    """Labelled pictures: your own in class folders, or a set that comes with a library.

    Args:
        source: "folder": root has train/<class>, val/<class> and perhaps test/<class>, or <class> alone, which is
            split. "digits": scikit-learn's, 8 x 8. "cifar10", "cifar100": downloaded if missing. "imagenet": as
            torchvision lays it out, with meta.bin, train and val.
        root: Folder of the pictures, or the folder of data sets with CIFAR in it, by default that of the variable
            COORDCONV_DATA, else ./data.
        image_size: Height and width of an image to train on, in pixels.
        eval_size: Height and width of an image to evaluate or predict on, in pixels. By default image_size.
        eval_resize: To evaluate or predict, the shorter side of a picture is resized to so many pixels before the
            middle is cut out. By default pictures stay as they are.
        crop: To train on, "resized" cuts a part of random size and shape and resizes it; "padded" adds a black border
            and cuts out a square, for small pictures.
        padding: Width of that border, in pixels. By default an eighth of image_size.
        scale: Least and greatest share of a picture's area that is cut out with crop=resized.
        ratio: Least and greatest width to height of what is cut out with crop=resized.
        flip: Probability to mirror an image to train on, left to right.
        augment: "trivial" is TrivialAugmentWide, "rand" RandAugment.
        erasing: Probability to erase a rectangle of an image to train on.
        mixup: Parameter of MixUp's beta distribution; 0 is without.
        cutmix: Parameter of CutMix's beta distribution; 0 is without. With MixUp too, a coin decides for each batch.
        repeats: How many times an image is in a batch, augmented anew each time. An epoch is as many times as long.
        mean: Of red, green and blue, 0 to 1, taken out of images.
        std: Standard deviations of red, green and blue, that images are divided by.
        val_fraction: Share of each class of what there is to train on that is held out to validate on, unless root has
            train and val. With 0, the test images of digits or CIFAR are validated on.
        split_seed: Fixes which images are held out. The seed does not, so that no run is tested on images that another
            one was trained on.
        on_bad_image: What to do with pictures that cannot be read: "error" ends the run, "skip" continues without them.
        predict_images: What predict looks at: a picture, or a folder of pictures, in sub-folders too.
        batch_size: Images in a batch to train on, on each process.
        eval_batch_size: Images in a batch to evaluate or to predict on, on each process.
        num_workers: Processes that make batches, on each process; 0 makes them in the main process.
        seed: Fixes the order of training and its augmentation.

    Attributes:
        image_size: Height and width of an image to train on, in pixels.
        eval_size: Height and width of an image to evaluate or predict on, in pixels.

    Raises:
        ValueError: An argument is out of its range, or does not go with the others.
    """

    def __init__(
        self,
        source: Source = "folder",
        root: str | None = None,
        image_size: int = 224,
        eval_size: int | None = None,
        eval_resize: int | None = None,
        crop: Crop = "resized",
        padding: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333333333333333),
        flip: float = 0.5,
        augment: Augment = "none",
        erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        repeats: int = 1,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        on_bad_image: OnBadImage = "error",
        predict_images: str | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        check_data(locals())
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.source: Source = source
        self.root = data_root(root)
        self.image_size = image_size
        self.eval_size = image_size if eval_size is None else eval_size
        self.eval_resize = eval_resize
        padding = image_size // 8 if padding is None else padding
        self.augmentation = Augmentation(image_size, crop, padding, scale, ratio, flip, augment, erasing, mean)
        self.mixup = mixup
        self.cutmix = cutmix
        self.repeats = repeats
        self.mean = mean
        self.std = std
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.on_bad_image: OnBadImage = on_bad_image
        self.predict_images = None if predict_images is None else Path(predict_images).expanduser()
        self.eval_batch_size = eval_batch_size
        self._class_names: list[str] | None = None
        self._held: HeldSet | None = None
        self._folder: FolderSource | None = None
        self._to_predict: ImageFiles | None = None
        self._not_to_predict = 0
        self._told: set[str] = set()

    # ------------------------------------------------------------------ what there is

    @property
    def class_names(self) -> list[str]:
        """The classes by number: of folders, in alphabetical order."""
        if self._class_names is None:
            if self._is_held:
                self._class_names = self._held_set().class_names
            else:
                names = self._folder_source().layout.class_names
                self._class_names = imagenet_names(self.root, names) if self.source == "imagenet" else names
        return self._class_names

    @property
    def num_classes(self) -> int:
        """The number of classes; no pictures are looked at to know it."""
        if self._is_held:
            return NUM_CLASSES[cast("HeldSource", self.source)]
        return len(self._folder_source().layout.class_names)

    @property
    def left_out(self) -> int:
        """How many pictures were found unreadable when folders were looked through: by every process."""
        return self._not_to_predict + (0 if self._folder is None else self._folder.left_out)

    @property
    def unreadable(self) -> set[str]:
        """The other files that could not be read: those that this process and its workers came across so far."""
        found = set() if self._folder is None else self._folder.unreadable
        if self._to_predict is not None:
            found |= {str(self._to_predict.path(number)) for number in self._to_predict.bad}
        return found

    def num_samples(self, part: Split) -> int:
        """The number of images to train, validate or test on.

        Args:
            part: Which of them.
        """
        return len(self._pictures(part).labels)

    def images_at(self, indices: Sequence[int], part: Split = "test") -> LabelledBatch:
        """Some images as they are evaluated, as a task gets them.

        Args:
            indices: Their numbers in the part.
            part: To train, to validate or to test on.
        """
        batch = EvalDataset(self._pictures(part), self._eval_transform()).__getitems__(indices)
        return batch._replace(images=to_network(batch.images, self.mean, self.std))

    def example_images(self, number: int, part: Split = "test") -> LabelledBatch:
        """Images from all over a part, to look at: always the same, and never augmented.

        Args:
            number: How many, if there are so many.
            part: To train, to validate or to test on.
        """
        total = self.num_samples(part)
        number = min(number, total)
        return self.images_at([i * total // number for i in range(number)], part)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Images of a task's batch to look at: float32 ``(B, 3, H, W)``, 0 to 1."""
        return to_pixels(images, self.mean, self.std)

    # ------------------------------------------------------------------ stages and loaders

    def prepare_data(self) -> None:
        """Downloads CIFAR, if it is the source and missing."""
        predicting = self.trainer is not None and self.trainer.state.fn == TrainerFn.PREDICTING
        if self.source in ("cifar10", "cifar100") and not predicting:
            fetch_cifar(self.source, self.root)

    def setup(self, stage: str) -> None:
        """Finds or loads what a stage needs.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Raises:
            FileNotFoundError: A folder or files are missing.
            ValueError: They are not what they should be.
        """
        if stage == "predict":
            self._find_pictures_to_predict()
            return
        needed: dict[str, list[Split]] = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}
        for part in needed[stage]:
            self._pictures(part)

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        """Makes the loader of images to train on."""
        pictures, transform = self._pictures("train"), TrainTransform(self.augmentation)
        groups = self.batch_size // self.repeats
        world_size = self._processes()[1]
        # Of a single image, batch normalisation has no variance: such a last batch is left out, and the epochs, whose
        # orders differ, leave out different images.
        number = self.num_samples("train")
        left = number % (groups * world_size)
        alone = self.repeats == 1 and groups > 1 and 0 < left < 2 * world_size and left < number
        if self.augmentation.is_batched:
            batched = BatchedTrainDataset(pictures, transform, self.repeats)
            loader = self._loader(batched, train=True, collate_fn=identity_collate, batch_size=groups, drop_last=alone)
            assert isinstance(loader, TrainLoader)
            loader.batches.seeded = True  # this dataset draws from the samples' seeds itself
            return loader
        dataset = TrainDataset(pictures, transform, self.repeats)
        options: dict[str, Any] = {"random_samples": True, "batch_size": groups, "drop_last": alone}
        return self._loader(dataset, train=True, collate_fn=concatenate, **options)

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        """Makes the loader of images to validate on."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[LabelledBatch]:
        """Makes the loader of images to test on."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Makes the loader of the user's own pictures."""
        dataset = PredictDataset(self._find_pictures_to_predict(), self._eval_transform())
        return self._loader(dataset, train=False, collate_fn=identity_collate, batch_size=self.eval_batch_size)

    # ------------------------------------------------------------------ batches on the device

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ANN401  # Lightning's
        """Makes floating point numbers of a batch's pixels, on the device, of the trainer's precision."""
        if not isinstance(batch, (LabelledBatch, ImageBatch)) or batch.images.dtype != torch.uint8:
            return batch
        images = to_network(batch.images, self.mean, self.std)
        if self.trainer is not None:  # it has converted the batch before, when there was nothing to convert
            images = self.trainer.precision_plugin.convert_input(images)
        return batch._replace(images=images)

    def mix_batch(self, batch: LabelledBatch, epoch: int, batch_idx: int) -> Mixed:
        """Mixes the images of a batch to train on, by MixUp or CutMix, if asked for.

        What is drawn depends on the seed, the epoch, the batch and the process alone, so a resumed run mixes the same.

        Args:
            batch: As a task gets it.
            epoch: The trainer's current epoch.
            batch_idx: The number of the batch in it.

        Returns:
            The images, and the share of each class in each of them.
        """
        # Negative: the orders of training have the numbers from 0 on.
        seed = mix_seeds(self.seed, -1, epoch, batch_idx, self._processes()[0])
        # The copies of an image stand side by side: it is mixed with another one, not with itself.
        return mix_batch(
            batch.images, batch.labels, self.num_classes, self.mixup, self.cutmix, seed, shift=self.repeats
        )

    # ------------------------------------------------------------------ sources

    @property
    def _is_held(self) -> bool:
        return self.source in get_args(HeldSource)

    def _eval_transform(self) -> EvalTransform:
        return EvalTransform(self.eval_size, self.eval_resize)

    def _eval_loader(self, part: Split) -> DataLoader[LabelledBatch]:
        dataset = EvalDataset(self._pictures(part), self._eval_transform())
        return self._loader(dataset, train=False, collate_fn=identity_collate, batch_size=self.eval_batch_size)

    def _held_set(self) -> HeldSet:
        if self._held is None:
            self._held = load_held(cast("HeldSource", self.source), self.root, self.val_fraction, self.split_seed)
        return self._held

    def _folder_source(self) -> FolderSource:
        if self._folder is None:
            self._folder = FolderSource(self.root, self.val_fraction, self.split_seed, self.on_bad_image)
        return self._folder

    def _pictures(self, part: Split) -> Pictures:
        if self._is_held:
            return self._held_set().parts[part]
        source = self._folder_source()
        pictures = source.part(part)
        for line in source.told:
            self._tell(line)
        return pictures

    def _tell(self, line: str) -> None:
        """Prints a line once, on the first process."""
        if line and line not in self._told and (self.trainer is None or self.trainer.is_global_zero):
            print(line)
        self._told.add(line)

    def _find_pictures_to_predict(self) -> ImageFiles:
        if self._to_predict is None:
            place, argument = self.predict_images, "data.predict_images"
            if place is None:
                raise ValueError(f"{argument}=null: predict needs a picture, or a folder of pictures")
            if place.is_file():
                self._to_predict = ImageFiles(place.parent, [place.name], argument, self.on_bad_image)
            else:
                names, self._not_to_predict, told = find_images(place, argument, self.on_bad_image)
                self._tell(told)
                self._to_predict = ImageFiles(place, names, argument, self.on_bad_image)
        return self._to_predict

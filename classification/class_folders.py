"""Class folders: a folder of images for each class, given as splits or to be split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from classification.imagenet import imagenet_class_names
from classification.splits import split_by_class
from coordconv_apps.data.image_files import ImageFiles, OnBadImage, find_images, list_class_folders
from coordconv_apps.data.splits import SPLITS, Split
from coordconv_apps.utils.errors import abbreviate_names


class ClassFolder(ImageFiles):
    """Image files with their classes, int64 ``(N,)``, read on demand.

    torchvision's ImageFolder is not used: it never ends where a link leads back to a parent folder, ignores folders
    that it cannot list, cannot skip unreadable files, and orders subfolders differently, which would change the images
    that a seed holds out.
    """

    def __init__(self, folder: Path, names: Sequence[str], labels: Tensor, on_bad_image: OnBadImage) -> None:
        super().__init__(folder, names, "data.root", on_bad_image)
        self.labels = labels


# ------------------------------------------------------------------ layout


class FolderLayout(NamedTuple):
    """The folders of the splits, and their classes.

    Attributes:
        folders: The folder with the class folders of each split; the same for all if it has to be split.
        class_names: The class folders in alphabetical order; the position is the label.
    """

    folders: dict[Split, Path]
    class_names: list[str]

    @property
    def needs_split(self) -> bool:
        """True if one folder has the images of all splits."""
        return self.folders["train"] == self.folders["val"]


def find_layout(root: Path) -> FolderLayout:
    """Find the class folders and splits of a data set, without looking at images.

    ``root`` has either ``train/<class>``, ``val/<class>`` and optionally ``test/<class>``, or ``<class>``. Without
    ``test``, the validation images are the test images.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: There are fewer than two class folders, or the splits have different ones.
    """
    names = list_class_folders(root, "data.root")
    has_splits = {"train", "val"} <= set(names)
    if not has_splits and set(names) <= set(SPLITS):
        raise ValueError(
            f"data.root={str(root)!r}: has only a folder {', '.join(names)}, must have both train and val with class"
            " folders in them, or class folders itself"
        )
    folders: dict[Split, Path] = {split: root / split if has_splits else root for split in SPLITS}
    if has_splits and "test" not in names:
        folders["test"] = folders["val"]
    class_names = list_class_folders(folders["train"], "data.root")
    if len(class_names) < 2:
        where = f"data.root={str(folders['train'])!r}"
        raise ValueError(f"{where}: has only one class ({class_names[0]}), must have at least two")
    for split in SPLITS[1:]:
        others = list_class_folders(folders[split], "data.root")
        only_in = {"train": set(class_names) - set(others), split: set(others) - set(class_names)}
        message = "; ".join(f"only in {where}: {abbreviate_names(sorted(n))}" for where, n in only_in.items() if n)
        if message:
            raise ValueError(f"data.root={str(root)!r}: train and {split} must have the same classes; {message}")
    return FolderLayout(folders, class_names)


# ------------------------------------------------------------------ images


class ClassImages(NamedTuple):
    """The readable images of a folder of class folders.

    Attributes:
        names: Paths relative to the folder, class by class.
        labels: int64 ``(N,)``: the class of each.
        left_out: Paths of unreadable files.
        message: Lines that count and name the files that are not used; empty if there are none.
    """

    names: list[str]
    labels: Tensor
    left_out: set[str]
    message: str


def find_class_images(folder: Path, class_names: Sequence[str], on_bad_image: OnBadImage) -> ClassImages:
    """Find the images of every class folder, in subfolders too.

    Raises:
        ValueError: A class has no readable images, or some are unreadable and on_bad_image is "error".
    """
    found = find_images(folder, "data.root", on_bad_image)
    labels = {name: label for label, name in enumerate(class_names)}
    # Images beside the class folders have no class.
    samples = [(labels[first], name) for name in found.names if (first := name.split(os.sep, 1)[0]) in labels]
    samples.sort(key=lambda sample: sample[0])  # stable: the order within a class stays
    found_labels = torch.tensor([label for label, _ in samples], dtype=torch.int64)
    counts = torch.bincount(found_labels, minlength=len(class_names)).tolist()
    empty = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if empty:
        message = f"data.root={str(folder)!r}: no readable images in the class folder {abbreviate_names(empty)}"
        raise ValueError("; ".join([message, *found.message.splitlines()]))
    lines = [found.message] if found.message else []
    if outside := [name for name in found.names if name.split(os.sep, 1)[0] not in labels]:
        count = f"{len(outside)} of {len(found.names)} images are in no class folder"
        lines.append(f"data.root={str(folder)!r}: {count}: {abbreviate_names(outside)}; left out")
    return ClassImages([name for _, name in samples], found_labels, found.left_out, "\n".join(lines))


@dataclass
class FolderSource:
    """The splits of a folder of class folders; a split is scanned when it is first used.

    The other attributes are arguments of `classification.data.ClassificationData`.

    Attributes:
        is_imagenet: Whether the class folders are named by ImageNet's identifiers.
        report: Called with lines about files that are not used.
        class_names: The classes by label.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: The layout is wrong, or no images are left for validation.
    """

    root: Path
    val_fraction: float
    split_seed: int
    on_bad_image: OnBadImage
    is_imagenet: bool = False
    report: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.layout = find_layout(self.root)
        if self.layout.needs_split and not self.val_fraction:
            raise ValueError(
                f"data.val_fraction={self.val_fraction}: must be above 0, as data.root={str(self.root)!r} has no"
                " folders train and val"
            )
        names = self.layout.class_names
        # At once, and not after all files of a wrong folder are listed.
        self.class_names = imagenet_class_names(self.root, names) if self.is_imagenet else names
        self._found: dict[Path, ClassImages] = {}
        self._splits: dict[Split, ClassFolder] = {}

    @property
    def num_classes(self) -> int:
        """The number of class folders."""
        return len(self.layout.class_names)

    def skipped_images(self) -> set[str]:
        """Return the paths of the images that could not be read, in the splits asked for so far."""
        left_out = (found.left_out for found in self._found.values())
        return set().union(*left_out, *(folder.bad for folder in self._splits.values()))

    def images(self, split: Split) -> ClassFolder:
        """Return the images of a split, see `find_class_images` and `split_by_class`."""
        if split == "test" and self.layout.folders["test"] == self.layout.folders["val"]:
            split = "val"
        if split not in self._splits:
            self._splits[split] = self._scan(split)
        return self._splits[split]

    def _scan(self, split: Split) -> ClassFolder:
        folder, class_names = self.layout.folders[split], self.layout.class_names
        if folder not in self._found:
            found = self._found[folder] = find_class_images(folder, class_names, self.on_bad_image)
            if found.message:
                self.report(found.message)
        found = self._found[folder]
        chosen = torch.arange(len(found.names))
        if self.layout.needs_split:
            try:
                kept, held_out = split_by_class(found.labels, self.val_fraction, self.split_seed, class_names)
            except ValueError as error:
                raise ValueError(f"data.root={str(folder)!r}: {error}") from error
            chosen = kept if split == "train" else held_out
        names = [found.names[i] for i in chosen.tolist()]
        return ClassFolder(folder, names, found.labels[chosen], self.on_bad_image)

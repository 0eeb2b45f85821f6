"""Read glyphs from scikit-learn's digits, MNIST, a folder of images, or IDX files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torchvision.datasets import MNIST

from coordconv_apps.data.downloads import download_files
from coordconv_apps.data.image_files import describe_others, list_class_folders, list_files
from coordconv_apps.data.splits import SPLITS, Split
from detection.glyphs import Glyphs, crop_to_ink, glyphs_from_images, pack_glyphs, shrink, split_by_class
from detection.gray_images import Bytes, Ink, read_gray
from detection.idx_files import read_idx

Source = Literal["uci", "mnist", "folder", "idx"]
"""scikit-learn's digits, MNIST, a folder with a subfolder of images for each class, or a pair of IDX files."""

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST_NUM_VAL = 5_000  # the last ones of the 60,000 training digits

# Fainter pixels of an image file are noise from scanning or compression. The other sources have a clean ground.
_FILE_INK_ABOVE = 32


def check_source(source: str, glyphs: Path | None, glyph_labels: Path | None) -> None:
    """Raise `ValueError` if ``source`` is unknown, or an argument of `load_glyphs` is missing or not for it."""
    if source not in get_args(Source):
        raise ValueError(f"source={source!r}: must be one of {', '.join(get_args(Source))}")
    meant = {"folder": "a folder with a subfolder of images for each class", "idx": "an IDX file of images"}
    if (glyphs is None) == (source in meant):
        wanted = meant.get(source, "null (only the sources 'folder' and 'idx' read files of your own)")
        raise ValueError(f"glyphs={_shown(glyphs)}: must be {wanted} with source={source!r}")
    if (glyph_labels is None) == (source == "idx"):
        wanted = "an IDX file of labels" if source == "idx" else "null"
        raise ValueError(f"glyph_labels={_shown(glyph_labels)}: must be {wanted} with source={source!r}")


def _shown(path: Path | None) -> str:
    return "null" if path is None else repr(str(path))


def load_glyphs(
    source: Source,
    splits: Sequence[Split] = SPLITS,
    *,
    root: Path = Path("data"),
    glyphs: Path | None = None,
    glyph_labels: Path | None = None,
    ink: Ink = "auto",
    max_side: int = 25,
) -> dict[Split, Glyphs]:
    """Read the glyphs of some splits of a source. Splits share no glyph, and never change.

    Args:
        source: ``uci``: the 1,797 digits of 8 x 8 pixels that come with scikit-learn. ``mnist``: its 10,000 test digits
            are the test split, the last 5,000 of its training digits the validation split. ``folder``, ``idx``: glyphs
            of the user's own. All but MNIST are split by class, 70 : 10 : 20.
        splits: The splits to return.
        root: The data root, for ``mnist``: the files are in ``root/MNIST/raw``, downloaded if missing.
        glyphs: For ``folder``, a folder whose subfolders are the classes and hold an image for each glyph. For ``idx``,
            an IDX file of images, unsigned bytes ``(G, H, W)``, bright on black, gzipped or not.
        glyph_labels: For ``idx``, the IDX file of labels, unsigned bytes ``(G,)``.
        ink: For ``folder``, whether the ink is bright or dark.
        max_side: The user's own glyphs are shrunk smoothly if a side of their ink has more pixels.

    Raises:
        ValueError: If an argument is not allowed, or a file does not hold what it should.
        FileNotFoundError: If a file or folder is missing.

    Example:
        >>> {split: len(glyphs) for split, glyphs in load_glyphs("uci").items()}
        {'train': 1259, 'val': 179, 'test': 359}
    """
    check_source(source, glyphs, glyph_labels)
    if source == "mnist":
        return _load_mnist(root, splits)
    if glyphs is None:  # source="uci"
        from sklearn.datasets import load_digits  # the import takes a second, which other sources do not need

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        everything = glyphs_from_images(images, digits.target, "digits")
    elif glyph_labels is None:
        everything = _load_folder(glyphs, ink, max_side)
    else:
        everything = _load_idx_pair(glyphs, glyph_labels, max_side)
    positions = split_by_class(everything)
    return {split: everything.select(positions[split]) for split in splits}


def load_class_names(glyphs: Path | None, glyph_labels: Path | None) -> tuple[str, ...]:
    """Read the names of the classes, in the order of the class numbers; arguments as for `load_glyphs`.

    Example:
        >>> load_class_names(None, None)[:3]  # of sources with digits
        ('0', '1', '2')
    """
    if glyphs is not None and glyph_labels is None:  # source="folder"
        return tuple(list_class_folders(glyphs, "glyphs"))
    labels = range(10) if glyph_labels is None else np.unique(read_idx(glyph_labels)).tolist()
    return tuple(str(label) for label in labels)


def fetch_mnist(root: Path) -> list[Path]:
    """Return the paths of `MNIST_FILES`, each plain or gzipped, in ``root/MNIST/raw``; download them if missing.

    Raises:
        FileNotFoundError: If they are missing and cannot be downloaded.
    """
    raw = root / "MNIST" / "raw"
    there = [next((p for p in (raw / name, raw / f"{name}.gz") if p.is_file()), None) for name in MNIST_FILES]
    found = [path for path in there if path is not None]
    if len(found) == len(MNIST_FILES):
        return found

    def download(temporary: Path) -> Path:
        MNIST(str(temporary), download=True)
        return temporary / "MNIST" / "raw"

    missing = (
        f"source='mnist': {', '.join(MNIST_FILES)} (plain or .gz) must be in {raw.resolve()}; put them there,"
        " or name the folder that holds MNIST/raw with data.root or the variable COORDCONV_DATA"
    )
    download_files(raw, MNIST_FILES, download, missing)
    return [raw / name for name in MNIST_FILES]


def _load_mnist(root: Path, splits: Sequence[Split]) -> dict[Split, Glyphs]:
    train_images, train_labels, test_images, test_labels = fetch_mnist(root)
    loaded: dict[Split, Glyphs] = {}
    if "test" in splits:
        loaded["test"] = _load_idx_pair(test_images, test_labels)
    if "train" in splits or "val" in splits:
        training = _load_idx_pair(train_images, train_labels)
        positions = torch.arange(len(training))
        loaded["train"] = training.select(positions[:-MNIST_NUM_VAL])
        loaded["val"] = training.select(positions[-MNIST_NUM_VAL:])
    return {split: loaded[split] for split in splits}


def _load_idx_pair(images_path: Path, labels_path: Path, max_side: int | None = None) -> Glyphs:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or not images.size:
        raise ValueError(f"{images_path}: must hold images (G, H, W), but has shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_path}: must hold {len(images)} labels, but has shape {labels.shape}")
    glyphs = glyphs_from_images(images, labels, str(images_path))
    if max_side is None or int(glyphs.sizes.max()) <= max_side:
        return glyphs
    inked = zip(glyphs.images.numpy(), glyphs.sizes.tolist(), strict=True)
    shrunk = [shrink(image[:h, :w], max_side) for image, (h, w) in inked]
    return pack_glyphs(shrunk, glyphs.labels.numpy(), glyphs.class_names)


def _load_folder(folder: Path, ink: Ink, max_side: int) -> Glyphs:
    glyphs: list[Bytes] = []
    labels: list[int] = []
    class_names = list_class_folders(folder, "glyphs")
    for label, directory in enumerate(folder / name for name in class_names):
        files = list_files(directory, "glyphs")
        if files.others:
            warnings.warn(describe_others(directory, "glyphs", files), stacklevel=2)
        for name in files.images:
            cropped, sizes = crop_to_ink(read_gray(directory / name, ink)[None], _FILE_INK_ABOVE)
            if sizes.min() < 1:
                raise ValueError(f"{directory / name}: no ink in this image (ink={ink!r})")
            glyphs.append(shrink(cropped[0], max_side))
            labels.append(label)
    return pack_glyphs(glyphs, np.array(labels), tuple(class_names))

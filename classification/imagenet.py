"""Names of ImageNet's classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.imagenet import META_FILE, load_meta_file
from torchvision.models import ResNet50_Weights

from coordconv_apps.utils.errors import abbreviate_names, one_line


def imagenet_class_names(root: Path, wordnet_ids: Sequence[str]) -> list[str]:
    """Return the names of ImageNet's classes, such as ``tench``, as torchvision's trained weights name them.

    Args:
        root: The folder of ImageNet. Where it has fewer than the 1,000 classes, ``meta.bin`` must be there too, which
            lists the identifiers of all.
        wordnet_ids: The sorted names of the class folders, such as ``n01440764``.

    Raises:
        FileNotFoundError: ``meta.bin`` is needed and missing.
        ValueError: ``meta.bin`` is damaged, or a folder is not one of ImageNet's classes.
    """
    categories: list[str] = ResNet50_Weights.DEFAULT.meta["categories"]  # in the order of the sorted identifiers
    is_complete = len(wordnet_ids) == len(categories)
    known = dict(zip(wordnet_ids if is_complete else _all_ids(root, len(categories)), categories, strict=True))
    unknown = [name for name in wordnet_ids if name not in known or not re.fullmatch(r"n\d{8}", name)]
    if unknown:
        raise ValueError(f"data.root={str(root)!r}: not ImageNet's classes: {abbreviate_names(unknown)}")
    return [known[name] for name in wordnet_ids]


def _all_ids(root: Path, number: int) -> list[str]:
    where = f"data.root={str(root)!r}"
    if not (root / META_FILE).is_file():
        raise FileNotFoundError(
            f"{where}: its class folders are not ImageNet's {number:,}, and {META_FILE} is missing; use"
            " data.source=folder, or let torchvision.datasets.ImageNet create it from ILSVRC2012_devkit_t12.tar.gz"
        )
    try:
        ids = sorted(load_meta_file(str(root))[0])
    except Exception as error:  # whatever loading a damaged file raises
        raise ValueError(f"{where}: {META_FILE} is not torchvision's ({one_line(error)[:80]})") from error
    if len(ids) != number:
        raise ValueError(f"{where}: {META_FILE} has {len(ids)} classes, must have {number:,}")
    return ids

"""Hold out samples for another split, class by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coordconv_apps.utils.seeds import mix_seeds


def split_by_class(labels: Tensor, fraction: float, seed: int, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Hold out a fraction of each class, in (0, 1): at least one sample is held out and at least one kept.

    This is not scikit-learn's ``train_test_split(stratify=labels)``: that draws other samples from the same seed, and
    gives small classes none.

    Returns:
        The sorted indices of the samples that are kept and of those held out, each int64.

    Raises:
        ValueError: A class has fewer than two samples.

    >>> kept, held_out = split_by_class(torch.tensor([0, 0, 0, 0, 1, 1]), 0.25, seed=0, class_names=["cat", "dog"])
    >>> len(kept), len(held_out)
    (4, 2)
    """
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(class_names):
        members = (labels == label).nonzero().flatten()
        if len(members) < 2:
            raise ValueError(f"class {name!r}: has {len(members)} image, must have at least 2 to train and to validate")
        count = min(len(members) - 1, max(1, round(fraction * len(members))))
        generator = torch.Generator().manual_seed(mix_seeds(seed, label))
        is_held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()

"""scikit-learn's handwritten digits, which come with that package."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def load_digits() -> tuple[Tensor, Tensor, list[str]]:
    """Load scikit-learn's 1,797 digits.

    Returns:
        Images uint8 ``(1797, 3, 8, 8)`` with three equal channels, labels int64 ``(1797,)``, and the class names.
    """
    from sklearn import datasets  # here: importing it takes a second, which no other source needs

    digits = datasets.load_digits()
    gray = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))  # from 0 to 16
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return gray[:, None].repeat(1, 3, 1, 1), labels, [str(name) for name in digits.target_names]

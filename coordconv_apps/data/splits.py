"""The splits of a data set."""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["train", "val", "test"]
EvaluationSplit = Literal["val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SPLITS_OF_STAGE: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
"""The splits that each of Lightning's stages needs; ``predict`` needs none."""

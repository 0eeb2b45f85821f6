"""Constructors of tasks and data: every argument is described; misspelt choices and numbers out of range are errors."""

from __future__ import annotations

import inspect
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from classification.data import ClassificationData
from classification.tasks import Classifier
from coordconv_apps.coordinates import CoordinateClassification, CoordinateRegression, CoordinateRendering
from coordconv_apps.coordinates.data import NotSoClevrData
from detection.coco_data import CocoData
from detection.data import DetectionData
from detection.tasks import FasterRCNN, RegionProposals
from generative.data import GenerativeData
from generative.tasks import GAN, VAE
from rl.tasks import A2C, DQN, PPO

CLASSES: dict[type, dict[str, Any]] = {
    Classifier: {"network": "resnet18", "num_classes": 3},
    ClassificationData: {"source": "digits", "padding": 1},
    FasterRCNN: {"num_classes": 3},
    **{kind: {} for kind in (RegionProposals, DetectionData, CocoData, GAN, VAE, GenerativeData)},
    **{kind: {} for kind in (CoordinateClassification, CoordinateRegression, CoordinateRendering, NotSoClevrData)},
    **{kind: {"game": "catch"} for kind in (A2C, PPO, DQN)},
}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_argument_is_described(kind: type) -> None:
    described = inspect.getdoc(kind) or ""
    assert [name for name in inspect.signature(kind).parameters if f"\n    {name}: " not in described] == []


def choices(kind: type) -> list[str]:
    """Return the names of the constructor's arguments that take one of several words."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    kinds = {name: [hint, *get_args(hint)] for name, hint in hints.items()}  # the hint may be one of ``X | None``
    return [name for name, of in kinds.items() if any(get_origin(h) is Literal and len(get_args(h)) > 1 for h in of)]


@pytest.mark.parametrize(
    ("kind", "argument"),
    [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in CLASSES for name in choices(kind)],
)
def test_a_misspelt_choice_is_an_error(kind: type, argument: str) -> None:
    with pytest.raises(ValueError, match=rf"{argument}='?misspelt'?:? must be "):
        kind(**{**CLASSES[kind], argument: "misspelt"})


def numbers(kind: type) -> list[str]:
    """Return the names of the constructor's arguments that take a number."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    simple = {name: hint for name, hint in hints.items() if get_origin(hint) in (None, UnionType)}
    found = [name for name, hint in simple.items() if {int, float} & {hint, *get_args(hint)}]
    # The data check the size of their squares, and the task that it is the data's.
    return [name for name in found if name != "square_size" or kind is NotSoClevrData]


@pytest.mark.parametrize(
    ("kind", "argument"),
    [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in CLASSES for name in numbers(kind)],
)
def test_a_negative_number_is_an_error_in_one_line(kind: type, argument: str) -> None:
    """No argument may be negative. Tests of each class have the other bounds of its ranges."""
    with pytest.raises(ValueError, match=rf"^(?=.*: must be )[^\n]*\b{argument}=-1\b[^\n]*$"):
        kind(**{**CLASSES[kind], argument: -1})


def test_a_misspelt_ink_to_predict_on_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^ink=black: must be auto, bright or dark$"):
        FasterRCNN(num_classes=3).predict(np.zeros((16, 16), np.uint8), ink="black")  # type: ignore[arg-type]

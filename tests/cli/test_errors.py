"""Messages of the command line: types in plain words, and arguments with their section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest

from coordconv_apps.cli.errors import describe_type, name_in_full, parsing_error


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "an integer"),
        (float | None, "a number, null"),
        (Literal["none", "xy"], "'none', 'xy'"),
        (tuple[float, float, float], "[a number, a number, a number]"),
        (list[float] | None, "[a number, ...], null"),
        (dict[str, bool | float] | None, "{name: true or false or a number, ...}, null"),
        (Mapping[str, Any], "{name: any value, ...}"),
    ],
)
def test_types_in_plain_words(hint: object, words: str) -> None:
    assert describe_type(hint) == words


def test_a_list_without_brackets_gets_an_example() -> None:
    message = "Parser key \"data.mean\":\n  Expected a <class 'tuple'>. Got value: 0.5"
    line = parsing_error(message, [], [], {"data.mean": tuple[float, float, float]})
    expected = "expected [a number, a number, a number]; in brackets: --data.mean=[0.5, 0.5, 0.5]"
    assert line == f"--data.mean=0.5: {expected}"


@pytest.mark.parametrize(
    ("message", "full"),
    [
        ("lr=0: must be above 0", "model.lr=0: must be above 0"),
        ("size=3: must be even", "data.size=3: must be even"),
        ("size=4: must be odd", "model.size=4: must be odd"),
        (
            "small=True: must be false with weights='default'",
            "model.small=True: must be false with model.weights='default'",
        ),
        ("layers: no such layer", "model.layers: no such layer"),
        ("model.lr=0: must be above 0", "model.lr=0: must be above 0"),
        ("/a/lr=0: no such file; 'lr=0'", "/a/lr=0: no such file; 'lr=0'"),
        ("images of shape (3,): must be (B, 3)", "images of shape (3,): must be (B, 3)"),
    ],
)
def test_arguments_have_the_names_of_their_flags(message: str, full: str) -> None:
    model = {"lr": 0, "size": 4, "small": True, "weights": "default", "layers": "x"}
    assert name_in_full(message, {"model": model, "data": {"size": 3}}) == full

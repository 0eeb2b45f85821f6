"""Messages of the command line: types in plain words, arguments with their section, and devices that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from coordconv_apps.cli.errors import describe_type, name_in_full, parsing_error
from coordconv_apps.cli.trainer import check_devices
from coordconv_apps.utils.errors import UserError


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


def given_by(**arguments: object) -> Any:  # noqa: ANN401  # in the place of the parser's
    return SimpleNamespace(**arguments)


def test_devices_and_machines_that_are_there() -> None:
    given = given_by(num_nodes=2, accelerator="cpu", devices=1)
    for launcher in ("MASTER_ADDR", "SLURM_JOB_ID"):
        check_devices(given, {launcher: "somewhere"})
    with pytest.raises(UserError, match="num_nodes=2"):
        check_devices(given, {"HOME": "/"})
    for devices in ("auto", -1, [0], "1"):
        check_devices(given_by(num_nodes=1, accelerator="cpu", devices=devices), {})
    check_devices(given_by(num_nodes=1, accelerator="cuda", devices=1000), {})  # for Lightning to refuse

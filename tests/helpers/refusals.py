"""Commands that refuse a user's mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def refusal(capsys: pytest.CaptureFixture[str], command: Callable[..., object], *args: Any) -> str:  # noqa: ANN401  # handed on
    """Return the one line with which a command ends that a user's mistake prevents, without ``error: ``."""
    capsys.readouterr()  # what was printed before
    with pytest.raises(SystemExit) as stopped:
        command(*args)
    error = capsys.readouterr().err
    assert stopped.value.code == 2, error
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    return error.removeprefix("error: ").rstrip()

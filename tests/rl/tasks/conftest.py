"""Fixtures of the tasks' tests."""

from __future__ import annotations

import pytest

import rl.envs.games
from tests.rl.training import make_dots


@pytest.fixture
def dots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The games "dots" and "steered" in place of all others."""
    monkeypatch.setattr(rl.envs.games, "make_envs", make_dots)

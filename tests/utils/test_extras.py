"""A missing package becomes one line that names the extra."""

from __future__ import annotations

import sys

import pytest

from coordconv_apps.utils.extras import required_extra


def test_a_missing_package_exits_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)  # importing it raises ModuleNotFoundError
    with pytest.raises(SystemExit) as stop, required_extra("detection"):
        import lightning  # noqa: F401 - it must fail
    assert stop.value.code == 2
    expected = "error: lightning is not installed; run: pip install 'coordconv-apps[detection]'\n"
    assert capsys.readouterr().err == expected


def test_a_missing_module_of_an_installed_package_is_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"numpy\.no_such_module"), required_extra("detection"):
        import numpy.no_such_module  # type: ignore[import-not-found]  # noqa: F401 - it must fail

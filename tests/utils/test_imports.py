"""The garbage collector is stopped for the imports of a command, and for nothing else."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest

from coordconv_apps.utils.imports import without_collections

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def _torch_not_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "torch")
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_torch_not_imported")
def test_objects_of_the_imports_are_exempt_from_collections() -> None:
    with without_collections():
        assert not gc.isenabled()
        imported = [[]]  # type: ignore[var-annotated]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    assert all(tracked is not imported for tracked in gc.get_objects())  # of those that collections look at
    later = [[]]  # type: ignore[var-annotated]
    assert any(tracked is later for tracked in gc.get_objects())


@pytest.mark.usefixtures("_torch_not_imported")
def test_a_failed_import_starts_the_collector_again() -> None:
    with pytest.raises(ModuleNotFoundError), without_collections():
        import numpy.no_such_module  # type: ignore[import-not-found]  # noqa: F401  # it must fail
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("_torch_not_imported")
def test_a_collector_that_the_user_has_stopped_stays_so() -> None:
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_nothing_changes_in_a_program_that_has_imported_torch() -> None:
    import torch  # noqa: F401

    with without_collections():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0

"""Every test here fails if pinned memory is overwritten during a copy."""

from collections.abc import Iterator

import pytest

from tests.simcuda.simulated import races


@pytest.fixture(autouse=True)
def no_races(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the number of races before and after a test; those with the marker ``races`` cause some."""
    before = races()
    yield
    if request.node.get_closest_marker("races") is None:
        assert races() == before, "pinned memory was overwritten while it was copied"

"""Contact sheets hold every picture, a title and a legend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from coordconv_apps.utils.contact_sheet import Grid, contact_sheet


@pytest.mark.parametrize("count", [1, 5])
def test_a_sheet_holds_all_pictures_below_title_and_legend(count: int) -> None:
    pictures = [Image.new("RGB", (50, 40), (number, 0, 0)) for number in range(1, count + 1)]
    sheet = np.asarray(contact_sheet([Grid(pictures, 2)], title="title", legend=[("#00ff00", "true")]))
    for number in range(1, count + 1):
        assert (sheet == (number, 0, 0)).all(-1).sum() == 50 * 40
    assert (sheet[:68] == (0, 255, 0)).all(-1).any()
    assert (sheet[:34] > 200).all(-1).any(), "a title"


def test_a_long_title_widens_the_sheet() -> None:
    sheet = contact_sheet([Grid([Image.new("RGB", (8, 8))], 2)], title="long " * 40)
    assert sheet.width > 600

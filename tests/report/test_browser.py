"""Pages in a browser: nothing reaches beyond a phone, everything is shown, and the console stays empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coordconv_apps.compare.arguments import Settings
from coordconv_apps.compare.extension import NOTHING
from coordconv_apps.compare.html_page import write_comparison_page
from coordconv_apps.compare.jobs import Plan
from coordconv_apps.report.run_page import write_run_page
from tests.compare.test_html_page import results_of
from tests.helpers.browser import CHROMIUM, show
from tests.report.folders import ODD, write_fit, write_test

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

LONG = "a_name_of_a_run_that_is_far_too_long_to_fit_into_a_line_of_a_phone" * 3


def pages(folder: Path) -> list[Path]:
    """Pages of a comparison of two values, and of a test; with names that are as bad as they can be."""
    out = folder / "compare"
    results = results_of(out, seeds=3, values=("pong", ODD))
    plan = Plan("tests.toy", (Path(LONG),), (), out, "model.game")
    settings = Settings("toy", plan, tuple(result.job for result in results), parallel=None, fresh=False)
    comparison = write_comparison_page(settings, results, NOTHING)
    test = write_test(write_fit(folder / LONG[:100] / "version_0", name=LONG, device=LONG))
    return [comparison, write_run_page(test)]


def test_pages_fit_a_desktop_and_a_phone(tmp_path: Path) -> None:
    asked = [(page, width) for page in pages(tmp_path) for width in (1280, 390)]
    found, messages, screenshot = show(asked, tmp_path)
    assert messages == []
    assert [page.width for page in found] == [width for _, width in asked]
    with Image.open(screenshot) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    left = 0
    for page in found:
        assert page.scroll == page.width, "the page scrolls sideways"
        assert page.outside == []
        assert page.broken == 0
        assert page.height > 1000
        assert page.drawings
        assert min(page.drawings) > 150, "a chart is too small to be read"
        assert page.ground == "rgb(251, 251, 250)"
        part = pixels[:1200, left : left + page.width]
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 50, "the page is blank"
        assert (part.min(axis=2) < 100).mean() > 0.005, "there is no text"
        left += page.width


def test_a_dark_screen_gets_a_dark_page_and_a_bad_page_is_noticed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<p style="width:500px">wide</p><img src="data:," alt=""><script>throw Error("no")</script>')
    (good, shown), messages, _ = show(
        [(write_run_page(write_fit(tmp_path / "a")), 390), (bad, 390)], tmp_path, dark=True
    )
    assert good.ground == "rgb(21, 24, 27)"
    assert shown.scroll > shown.width
    assert shown.outside
    assert shown.broken == 1
    assert any("Error: no" in message for message in messages)

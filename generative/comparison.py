"""Extend reports of `coordconv_apps.compare` with relative coverage and the pictures of all arms."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from coordconv_apps.compare.extension import Extension, Row
from coordconv_apps.compare.gather import pictures_by_arm
from coordconv_apps.compare.results import Result

PICTURES = ("centers", "samples", "walks")  # pictures that the report shows for all arms, one below the other
COVERAGE, REAL_COVERAGE = "test/coverage", "test/floor/coverage"

_GAP = 12


def extend(results: Sequence[Result]) -> Extension:
    """Return the coverage relative to that of real data, and the pictures of the first seed that all arms finished."""
    finished = [result for result in results if not result.error]
    ratios = {r.job: r.metrics[COVERAGE] / r.metrics[REAL_COVERAGE] for r in finished if r.metrics.get(REAL_COVERAGE)}
    rows = [Row("coverage / that of real data", ratios, ".3f")] if ratios else []
    seed, by_arm = pictures_by_arm(results)
    paths = {name: [own[name] for own in by_arm.values() if name in own] for name in PICTURES}
    figures = {name: _stack(own) for name, own in paths.items() if own and len(own) == len(by_arm)}
    notes = [f"pictures of seed {seed}, from top to bottom: {', '.join(by_arm)}"] if figures else []
    return Extension(rows, notes, figures)


def _stack(paths: Sequence[Path]) -> bytes:
    """Return a PNG file with the pictures one below the other."""
    pictures = [Image.open(path, formats=["PNG"]).convert("RGB") for path in paths]
    width = max(picture.width for picture in pictures)
    height = sum(picture.height + _GAP for picture in pictures) - _GAP
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + _GAP
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()

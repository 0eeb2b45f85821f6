"""What the generative application adds to the reports of `compare`: how near the floor, and both arms' pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from coordconv_apps.compare.extension import Extension, Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from coordconv_apps.compare.results import Result

PICTURES = ("centers", "samples", "walks")
"""Pictures of which the report shows those of all arms, one above the other."""

COVERAGE, FLOOR = "test/coverage", "test/floor/coverage"

_GAP = 12


def extend(results: Sequence[Result]) -> Extension:
    """Makes the row of coverage relative to its floor, and the pictures of the first seed that all arms finished.

    Args:
        results: The results of all jobs.
    """
    finished = [result for result in results if not result.error]
    shares = {r.job: r.metrics[COVERAGE] / r.metrics[FLOOR] for r in finished if r.metrics.get(FLOOR)}
    rows = [Row("coverage, share of its floor", shares, ".3f")] if shares else []
    figures, notes = {}, []
    arms = list(dict.fromkeys(result.job.arm for result in results))
    seeds = set.intersection(*({r.job.seed for r in finished if r.job.arm == arm} for arm in arms))
    if seeds:
        seed = min(seeds)
        of_seed = {result.job.arm: result for result in finished if result.job.seed == seed}
        for name in PICTURES:
            if picture := _above_each_other([_picture(of_seed[arm], name) for arm in arms]):
                figures[name] = picture
        if figures:
            notes.append(f"pictures of seed {seed}, from above: {', '.join(arms)}")
    return Extension(rows, notes, figures)


def _picture(result: Result, name: str) -> Path | None:
    """A picture that the run's test wrote, or else its training."""
    paths = (folder / "pictures" / f"{name}.png" for folder in reversed(result.folders))
    return next((path for path in paths if path.is_file()), None)


def _above_each_other(paths: Sequence[Path | None]) -> bytes | None:
    """A PNG file of all pictures; None if one is missing."""
    pictures = [Image.open(path).convert("RGB") for path in paths if path is not None]
    if len(pictures) < len(paths):
        return None
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + _GAP * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + _GAP
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()

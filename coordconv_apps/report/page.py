"""Render pages from the templates in this package: each is one HTML file that loads nothing else."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path

from coordconv_apps.utils.files import atomic_write

PAGE = "report.html"

MOST_CHARTS = 12
"""Curves on a page; the names of further ones are listed."""

MEANING = {
    "none": "plain convolutions, without coordinates",
    "xy": "convolutions that also see the position, x and y",
    "xyr": "convolutions that also see the position, x and y, and the distance from the centre",
}
"""What each arm is."""


def pages_wanted() -> bool:
    """Return whether pages are written: not with ``COORDCONV_REPORT=0``, for thousands of short runs."""
    return os.environ.get("COORDCONV_REPORT", "") != "0"


def write_page(path: Path, template: str, context: Mapping[str, object]) -> None:
    """Render a template of this package, and write the page atomically; all texts of the context are escaped."""
    # Imported when there is a page to write.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from coordconv_apps.runs.environment import package_versions

    environment = Environment(
        loader=PackageLoader("coordconv_apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    written = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    version = package_versions()["coordconv_apps"]
    text = environment.get_template(template).render(context, written=written, version=version)
    with atomic_write(path) as file:
        file.write(text)

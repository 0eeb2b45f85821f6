"""``python -m coordconv_apps.coordinates fit | validate | test | export``: see its ``README.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.extras import required_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

with required_extra("coordinates"):
    from coordconv_apps.cli.app import run
    from coordconv_apps.coordinates.data import NotSoClevrData
    from coordconv_apps.coordinates.pictures import CoordinatePictures
    from coordconv_apps.coordinates.tasks import CoordinateClassification, CoordinateTask


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with these command-line arguments; those of the process if None."""
    callbacks = (CoordinatePictures,)
    run("coordinates", CoordinateTask, NotSoClevrData, args, default_task=CoordinateClassification, callbacks=callbacks)


if __name__ == "__main__":
    main()

"""``python -m detection fit | validate | test | predict | export``: see ``detection/README.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.extras import required_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

with required_extra("detection"):
    from coordconv_apps.cli.app import run
    from detection.data import DetectionData
    from detection.pictures import DetectionPictures
    from detection.predictions import DetectionWriter
    from detection.tasks import DetectionTask, FasterRCNN


def main(args: Sequence[str] | None = None) -> None:
    """Run the application.

    Args:
        args: Command-line arguments; those of the process if None.
    """
    run(
        "detection",
        DetectionTask,
        DetectionData,
        args,
        default_task=FasterRCNN,
        callbacks=(DetectionPictures, DetectionWriter),
    )


if __name__ == "__main__":
    main()

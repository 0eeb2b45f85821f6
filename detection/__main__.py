"""``python -m detection fit | validate | test | predict | export``: see ``detection/README.md``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import check_command
from coordconv_apps.utils.extras import required_extra


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with ``args``; with the arguments of the process if None."""
    args = check_command("detection", args)
    with required_extra("detection"):
        from coordconv_apps.cli.app import run
        from detection.data import DetectionData
        from detection.pictures import DetectionPictures
        from detection.predictions import DetectionWriter
        from detection.tasks import DetectionTask, FasterRCNN

    callbacks = (DetectionPictures, DetectionWriter)
    run("detection", DetectionTask, DetectionData, args, default_task=FasterRCNN, callbacks=callbacks)


if __name__ == "__main__":
    main()

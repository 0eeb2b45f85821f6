"""``python -m coordconv_apps.coordinates fit | validate | test | export``: see its ``README.md``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import COMMANDS, check_command
from coordconv_apps.utils.extras import required_extra
from coordconv_apps.utils.imports import without_collections


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with these command-line arguments; those of the process if None."""
    commands = [command for command in COMMANDS if command != "predict"]  # every sample has a known answer
    with required_extra("coordinates"), without_collections():
        args = check_command("coordconv_apps.coordinates", args, commands)
        from coordconv_apps.cli.app import run
        from coordconv_apps.coordinates.data import NotSoClevrData
        from coordconv_apps.coordinates.pictures import CoordinatePictures
        from coordconv_apps.coordinates.tasks import CoordinateClassification, CoordinateTask

    callbacks = (CoordinatePictures,)
    run("coordinates", CoordinateTask, NotSoClevrData, args, default_task=CoordinateClassification, callbacks=callbacks)


if __name__ == "__main__":
    main()

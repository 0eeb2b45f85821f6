"""``python -m generative fit | validate | test | predict | export``: see ``generative/README.md``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import check_command
from coordconv_apps.utils.extras import required_extra
from coordconv_apps.utils.imports import without_collections


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with command-line arguments; with those of the process if None."""
    with required_extra("generative"), without_collections():
        args = check_command("generative", args)
        from coordconv_apps.cli.app import run
        from generative.data import GenerativeData
        from generative.pictures import GenerativePictures
        from generative.predictions import SampleWriter
        from generative.tasks import GAN, GenerativeTask

    callbacks = (GenerativePictures, SampleWriter)
    run("generative", GenerativeTask, GenerativeData, args, default_task=GAN, callbacks=callbacks)


if __name__ == "__main__":
    main()

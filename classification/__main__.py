"""``python -m classification fit | validate | test | predict | export``: see ``classification/README.md``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import check_command
from coordconv_apps.utils.extras import required_extra
from coordconv_apps.utils.imports import without_collections


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with command-line arguments; with those of the process if None."""
    with required_extra("classification"), without_collections():
        args = check_command("classification", args)
        from classification.data import ClassificationData
        from classification.pictures import ClassificationPictures
        from classification.predictions import ClassificationPredictionWriter
        from classification.tasks import Classifier
        from coordconv_apps.cli.app import run

    callbacks = (ClassificationPictures, ClassificationPredictionWriter)
    run("classification", Classifier, ClassificationData, args, callbacks=callbacks)


if __name__ == "__main__":
    main()

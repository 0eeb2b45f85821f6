"""``python -m classification fit | validate | test | predict | export``: see ``classification/README.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.extras import required_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

with required_extra("classification"):
    from classification.data import ClassificationData
    from classification.pictures import ClassificationPictures
    from classification.predictions import ClassificationPredictionWriter
    from classification.tasks import Classifier
    from coordconv_apps.cli.app import run


def main(args: Sequence[str] | None = None) -> None:
    """Run the application.

    Args:
        args: Command-line arguments; those of the process if None.
    """
    run(
        "classification",
        Classifier,
        ClassificationData,
        args,
        callbacks=(ClassificationPictures, ClassificationPredictionWriter),
    )


if __name__ == "__main__":
    main()

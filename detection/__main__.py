"""``python -m detection fit | validate | test | predict | export``: see ``detection/README.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from coordconv_apps.cli.start import check_command
from coordconv_apps.utils.errors import UserError
from coordconv_apps.utils.extras import required_extra
from coordconv_apps.utils.imports import without_collections

if TYPE_CHECKING:
    from detection.base_data_module import DetectionDataModule


def choose_data(given: Mapping[str, Any]) -> type[DetectionDataModule]:
    """Return the data module for ``data.source``: `CocoData` for "coco", else `DetectionData`.

    Raises:
        UserError: There is no such source. The parser of one data module would not name the sources of the other.
    """
    from detection.coco_data import CocoData
    from detection.data import DetectionData
    from detection.glyph_sources import Source

    source, known = given.get("source"), (*get_args(Source), "coco")
    if source is not None and source not in known:
        raise UserError(f"--data.source={source}: expected {', '.join(map(repr, known))}")
    return CocoData if source == "coco" else DetectionData


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with ``args``; with the arguments of the process if None."""
    with required_extra("detection"), without_collections():
        args = check_command("detection", args)
        from coordconv_apps.cli.app import run
        from detection.data import DetectionData
        from detection.pictures import DetectionPictures
        from detection.predictions import DetectionWriter
        from detection.tasks import DetectionTask, FasterRCNN

    callbacks = (DetectionPictures, DetectionWriter)
    run(
        "detection",
        DetectionTask,
        DetectionData,
        args,
        default_task=FasterRCNN,
        callbacks=callbacks,
        choose_data=choose_data,
    )


if __name__ == "__main__":
    main()

"""``python -m rl fit | validate | test | predict | export``: see ``rl/README.md``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import check_command
from coordconv_apps.utils.extras import required_extra
from coordconv_apps.utils.imports import without_collections


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with these command-line arguments; with those of the process if None."""
    with required_extra("rl"), without_collections():
        args = check_command("rl", args)
        import rl.registration  # noqa: F401  # not done yet within `python -m rl`
        from coordconv_apps.cli.app import run
        from rl.data import RLData
        from rl.pictures import RLPictures
        from rl.predictions import EpisodeWriter
        from rl.tasks import A2C, RLTask

    run("rl", RLTask, RLData, args, default_task=A2C, callbacks=(RLPictures, EpisodeWriter))


if __name__ == "__main__":
    main()

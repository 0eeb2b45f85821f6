"""The toy application's command line."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import check_command


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command."""
    args = check_command("tests.toy", args)
    from coordconv_apps.cli.app import run
    from tests.toy.data import ToyData
    from tests.toy.tasks import DotTask, ToyPictures, ToyTask

    run("toy", DotTask, ToyData, args, default_task=ToyTask, callbacks=[ToyPictures])


if __name__ == "__main__":
    main()

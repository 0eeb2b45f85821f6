"""The command line: ``python -m examples.find_the_cross fit | validate | test | export``."""

from __future__ import annotations

from collections.abc import Sequence

from coordconv_apps.cli.start import COMMANDS, check_command


def main(args: Sequence[str] | None = None) -> None:
    """Run the application with these command-line arguments; those of the process if None."""
    commands = [command for command in COMMANDS if command != "predict"]  # a task with `predict_step` has it, too
    args = check_command("examples.find_the_cross", args, commands)  # answers --help before torch is imported
    from coordconv_apps.cli.app import run
    from examples.find_the_cross.data import CrossData
    from examples.find_the_cross.pictures import CrossPictures
    from examples.find_the_cross.tasks import FindTheCross

    run("find_the_cross", FindTheCross, CrossData, args, callbacks=(CrossPictures,))


if __name__ == "__main__":
    main()

"""Run a Python program on simulated CUDA devices: ``python -m tests.simcuda -m detection fit ...``."""

import os
import sys

from tests.simcuda.build import environment


def main() -> None:
    """Replace this process by the program."""
    if not sys.argv[1:]:
        sys.exit("usage: python -m tests.simcuda <arguments of python>, such as -m detection fit ...")
    try:
        variables = environment(os.environ)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], variables)


if __name__ == "__main__":
    main()

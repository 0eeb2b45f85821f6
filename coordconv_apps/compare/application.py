"""Find an application, and ask it for its merged config before any job runs."""

import contextlib
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from coordconv_apps.compare.jobs import Job, Plan
from coordconv_apps.utils.config_files import as_mapping

_ERROR_LINE = re.compile(r"^(error: .*|([A-Za-z_]\w*\.)*[A-Za-z_]\w*(Error|Exception|Interrupt)\b.*)$")


def find_module(app: str) -> str:
    """Return the module that `python -m` runs for an application: its own name, or one of `coordconv_apps`.

    Raises:
        ValueError: There is no such package, or it cannot be run.
    """
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", app):
        for name in (app, f"coordconv_apps.{app}"):
            with contextlib.suppress(ModuleNotFoundError):
                spec = importlib.util.find_spec(name)
                places = spec.submodule_search_locations if spec is not None else None
                if any((Path(place) / "__main__.py").is_file() for place in places or ()):
                    return name
    raise ValueError(f"APP {app}: no such application; it is a package with a __main__.py, such as detection")


def merged_config(plan: Plan, job: Job) -> dict[str, Any]:
    """Return the config with which the application would train a job, as its `--print_config` prints it.

    Raises:
        ValueError: The application rejects the config files or flags; the message is its own.
    """
    command = [*plan.arguments(job, "fit"), "--print_config"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(last_error_line(done.stderr).removeprefix("error: "))
    return as_mapping(yaml.safe_load(done.stdout))


def last_error_line(output: str) -> str:
    r"""Return the last line of a program's output that names an error, else its last line.

    >>> last_error_line("epoch 1\nerror: --model.lr=x: expected a number\nbye")
    'error: --model.lr=x: expected a number'
    """
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return (errors or lines or ["(no output)"])[-1]

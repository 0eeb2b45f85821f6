"""What the tests of `compare` share: a folder in which it runs an application that only pretends to train."""

import json
from pathlib import Path
from typing import Any

from coordconv_apps.compare import __main__ as compare
from tests.helpers.runs import rows

ROOT = Path(__file__).parents[2]
APP = "tests.compare.fakeapp"


class Comparison:
    """A folder with a config, and comparisons run in it by calls of `main`."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.config = folder / "toy.yaml"
        self.config.write_text("trainer:\n  max_epochs: 3\n")
        self._calls = folder / "calls.jsonl"

    def arguments(self, *args: str) -> list[str]:
        return [APP, "--config", str(self.config), "--out", str(self.out), *args]

    def run(self, *args: str) -> int:
        return compare.main(self.arguments(*args))

    def calls(self) -> list[dict[str, Any]]:
        """The calls of the application, in the order in which they ended."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [json.loads(line) for line in lines]

    def stages(self) -> list[str]:
        """Those calls as `fit xy-seed0`."""
        return [f"{call['args'][0]} {flag(call, '--name')}" for call in self.calls()]

    def rows(self) -> list[dict[str, str]]:
        return rows(self.out, "comparison.csv")


def flag(call: dict[str, Any], name: str) -> str | None:
    values = [part.partition("=")[2] for part in call["args"] if part.startswith(f"{name}=")]
    return values[-1] if values else None

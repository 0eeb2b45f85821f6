"""The configs that the applications ship."""

from __future__ import annotations

import pytest

from coordconv_apps.utils.config_files import shipped_configs

APPLICATIONS = ("classification", "coordconv_apps.coordinates", "detection", "generative", "rl")
CONFIGS = [(package, name) for package in APPLICATIONS for name in shipped_configs(package)]
PLAIN = {"classification": ["source"], "generative": ["coords", "source", "reconstruction"]}
"""Values that need no source."""


@pytest.mark.parametrize(("package", "name"), CONFIGS)
def test_configs_say_where_every_value_comes_from(package: str, name: str) -> None:
    lines = shipped_configs(package)[name].read_text().splitlines()
    plain = ["class_path", "init_args", *PLAIN.get(package, [])]
    values = [line for line in lines if line.startswith("  ") and line.strip().partition(":")[0] not in plain]
    assert len(values) > 10
    assert [line for line in values if "#" not in line] == []

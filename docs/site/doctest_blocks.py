"""Griffe extension: show the ``>>>`` examples of docstrings as code, with or without an "Examples:" heading."""

from __future__ import annotations

import re

import griffe

EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>> .*(?:\n(?P=indent)[ ]*\S.*)*", re.MULTILINE)


def fence_examples(text: str) -> str:
    """Put each example, up to the next empty line, into a fenced block of its own."""
    return EXAMPLE.sub(lambda match: f"{match['indent']}```pycon\n{match[0]}\n{match['indent']}```", text)


class DoctestBlocks(griffe.Extension):
    """Change docstrings when they are read from the source."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = fence_examples(obj.docstring.value)

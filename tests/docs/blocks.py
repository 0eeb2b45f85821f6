"""Read the code blocks and inline commands of Markdown pages, with the mark that says how each is tested.

A mark is a comment in the line above a block, ``<!-- test: KIND DETAILS -->``:

- python blocks run, all of a page in one namespace and one folder, except with ``parse REASON`` (such as a download or
  a GPU) and ``slow``; ``replace OLD -> NEW; OLD -> NEW`` makes numbers smaller first. A block with a ``title`` is
  written to the file of that name, which later blocks import and run.
- The arguments of every shell command are parsed. With ``run FLAGS`` the commands run, too, with these flags added, and
  with ``slow FLAGS`` they do so among the slow tests alone.
- yaml blocks are parsed as configs of the application that ``config APP`` names.
- text blocks are no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SHELL = ("", "bash", "sh", "console")
LANGUAGES = ("python", "yaml", "text", *SHELL)
KINDS = {"python": ("parse", "replace", "slow"), "yaml": ("config",), **dict.fromkeys(SHELL, ("run", "slow"))}
"""The kinds of marks that each language may have."""

_FENCE = re.compile(
    r"(?:^[ ]*<!-- test: (?P<mark>[^\n]*) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_COMMAND = re.compile(r"(\w+=\S+ )*(make|pip install|torchrun|python (-m|\w+/))\s")


class Block(NamedTuple):
    """A block of code of a page, or a command within a sentence, which is inline.

    Attributes:
        page: The file, relative to the repository.
        line: Number of the first line of its text.
        language: One of `LANGUAGES`.
        kind: Kind of its mark; empty without one.
        details: The rest of the mark.
        title: The file that it shows; empty if none.
        text: The code, without the page's indentation.
        inline: Whether it stands within a sentence.
    """

    page: str
    line: int
    language: str
    kind: str
    details: str
    title: str
    text: str
    inline: bool = False

    @property
    def place(self) -> str:
        """Page and line, as in ``docs/start.md:12``."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return the pages of the documentation, relative to the repository; old commands of the changelog are no use."""
    patterns = ("*.md", "docs/**/*.md", "*/README.md", "coordconv_apps/*/README.md")
    found = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(page for page in found if page != "CHANGELOG.md" and not page.startswith((".", "build/", "runs/")))


def read_blocks(page: str, text: str | None = None) -> list[Block]:
    r"""Return the blocks of a page in order; its text is given or read from the repository.

    >>> [block.text for block in read_blocks("a.md", "Type `make  demo` or\n\n```bash\nmake test\n```\n")]
    ['make demo', 'make test\n']
    """
    text = (ROOT / page).read_text(encoding="utf-8") if text is None else text
    blocks = list(_fenced(page, text))
    prose = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in _INLINE.finditer(prose):
        command = " ".join(match[1].split())
        if _COMMAND.match(command + " "):
            line = prose.count("\n", 0, match.start()) + 1
            blocks.append(Block(page, line, "bash", "", "", "", command, inline=True))
    return sorted(blocks, key=lambda block: block.line)


def _fenced(page: str, text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        indent, (kind, _, details) = match["indent"], (match["mark"] or "").partition(" ")
        code = "".join(line.removeprefix(indent) for line in match["text"].splitlines(keepends=True))
        title = re.search(r'title="([^"]+)"', match["info"])
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(page, line, match["language"], kind, details, title[1] if title else "", code)

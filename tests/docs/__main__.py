"""List every block and command of the documentation, and how it is tested: ``python -m tests.docs``."""

from __future__ import annotations

from collections import Counter

from tests.docs.blocks import SHELL, Block, pages, read_blocks
from tests.docs.running import is_run


def how(block: Block) -> str:
    """Return how a block is tested."""
    if block.language == "text":
        return "not code"
    if is_run(block, slow=False):
        return "written, then used by later blocks" if block.title else "run"
    if block.kind == "slow":
        return "parsed; run by make test-slow" if block.language in SHELL else "run by make test-slow"
    return f"parsed ({block.details})" if block.kind == "parse" else "parsed"


def main() -> None:
    """Print the list, and a summary."""
    counts = Counter[str]()
    for page in pages():
        for block in read_blocks(page):
            counts[how(block)] += 1
            language = "inline" if block.inline else block.language or "bash"
            first = next((line for line in block.text.splitlines() if line.strip()), "")
            print(f"{block.place:45} {language:7} {how(block):40} {block.title or first[:80]}")
    print("\n" + "\n".join(f"{count:4} {way}" for way, count in counts.most_common()))


if __name__ == "__main__":
    main()

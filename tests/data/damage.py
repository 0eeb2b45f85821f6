"""Ways to damage a file, shared by the tests of all formats."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np


def flipped(content: bytes, seed: int) -> bytes:
    """Change twenty bytes."""
    rng, changed = np.random.default_rng(seed), bytearray(content)
    for place in rng.integers(0, len(content), 20):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def damaged(content: bytes) -> dict[str, bytes]:
    """Return damaged versions of a file by name."""
    half = len(content) // 2
    versions = {f"cut{percent}": content[: len(content) * percent // 100] for percent in (1, 5, 20, 50, 80, 95, 99)}
    versions |= {f"flip{seed}": flipped(content, seed) for seed in range(6)}
    return versions | {
        "empty": b"",
        "byte": content[:1],
        "zeros": bytes(len(content)),
        "end": content[:half] + bytes(len(content) - half),
        "text": b"<html>not found</html>",
        "magic": b"XX" + content[2:],
        "twice": content + content,
        "hole": content[: half // 2] + content[half:],
    }


def special_files(folder: Path, suffix: str) -> list[Path]:
    """Create what is no regular file, and files with unusual names; no content is valid."""
    names = ("new\nline", os.fsdecode(b"\xff\xfe"), "n" * 200, " ", "'\"", "-", "~")
    paths = [folder / f"{name}{suffix}" for name in names]
    for path in paths:
        path.write_bytes(b"no content")
    links = {"one": "two", "two": "one", "gone": "nowhere", "zero": "/dev/zero", "up": ".."}
    for name, other in links.items():
        paths.append(folder / f"{name}{suffix}")
        paths[-1].symlink_to(other + suffix if name in ("one", "two") else other)
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"folder{suffix}").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket is limited to 100 characters
        bound.bind(f"socket{suffix}")
        os.chdir(here)
    return [*paths, *(folder / f"{name}{suffix}" for name in ("pipe", "folder", "socket", "missing"))]

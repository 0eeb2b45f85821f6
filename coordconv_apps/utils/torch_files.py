"""Bound the memory and the time that reading a file of ``torch.save`` takes: it may come from a stranger.

``torch.load(weights_only=True)`` runs no code, but a few hundred bytes can make it create gigabytes, or values that
share their parts so often that walking through them never ends.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from coordconv_apps.utils.errors import UserError

MAX_VALUES = 100_000
"""Number of values that shared ones may add up to in any file, however small."""
MAX_SHARING = 10
"""Upper bound for the number of values over those in the file, in larger files."""

_LARGE = re.compile(r"\w+\.bytearray|torch\.(\w+\.)?sparse\..*|.*\._rebuild_(sparse_tensor|device_tensor_from_\w+)")
"""What `torch.load` allows, and what creates more than the file holds from a number or from an expanded tensor."""
_LEGACY_PICKLES = 5
"""Number of pickles at the beginning of a file of torch before 1.6, which is no zip file."""
_IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Instructions that add to the value below their arguments."""


class UnboundedFile(UserError, ValueError):
    """Reading a file would take more memory or time than its size allows."""


def check_torch_file(file: Path | str | IO[bytes], where: str) -> None:
    """Check a file before `torch.load` opens it; nothing in it is loaded. Files of ``.safetensors`` need no check.

    Args:
        file: The file, or its path. A damaged one raises errors of many kinds.
        where: The argument and its value, for messages.

    Raises:
        UserError: The checksum of its description of the values is wrong.
        UnboundedFile: Its parts are compressed or overlap, or its values may become much larger than the file.
    """
    if isinstance(file, Path | str):
        if not str(file).endswith(".safetensors"):
            with open(file, "rb") as opened:
                check_torch_file(opened, where)
        return
    start = file.tell()
    is_zip = file.read(4) == b"PK\x03\x04"  # as torch decides
    file.seek(start)
    if is_zip:
        _check_zip(file, where)
    else:
        for _ in range(_LEGACY_PICKLES):
            _check_pickle(file, where)
    file.seek(start)


def _check_zip(file: IO[bytes], where: str) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = file.seek(0, 2)
        # torch stores all parts as they are, and begins with the first. What is compressed may be larger than memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnboundedFile(f"{where}: must be as torch saves it, not a compressed zip file")
        if sum(entry.file_size for entry in entries) > size or all(entry.header_offset for entry in entries):
            raise UnboundedFile(f"{where}: must be as torch saves it; the parts of this zip file overlap")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):  # torch ignores case
                try:
                    content = archive.read(entry)
                except zipfile.BadZipFile as error:  # torch does not check the checksums
                    raise UserError(
                        f"{where}: damaged, the checksum of {entry.filename} is wrong; choose another file"
                    ) from error
                _check_pickle(io.BytesIO(content), where)


def _check_pickle(file: IO[bytes], where: str) -> None:
    """Follow the instructions of a pickle with lists in place of its values, and count all values with their parts."""
    stack: list[Any] = []  # texts, and for all other values lists of their parts
    memo: dict[Any, Any] = {}
    marks: list[int] = []
    instructions = 0
    for instruction, argument in _instructions(file):
        name, before = instruction.name, instruction.stack_before
        instructions += 1
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif isinstance(argument, str):
            if name == "GLOBAL" and _LARGE.fullmatch(full_name := argument.replace(" ", ".")):
                raise UnboundedFile(f"{where}: must hold dense tensors and plain values; it names {full_name}")
            stack.append(argument)
        elif name != "STOP":
            begin = marks.pop() if pickletools.markobject in before else len(stack) - len(before) + (name in _IN_PLACE)
            parts = stack[begin:]
            del stack[begin:]
            if name in _IN_PLACE:
                stack[-1].extend(parts)
            else:
                stack.append(parts)
            if name == "REDUCE" and parts[0] == "_codecs encode" and parts[1][1:] != ["latin1"]:
                raise UnboundedFile(f"{where}: must hold bytes as pickle writes them, encoded in latin1")
    limit = MAX_VALUES + MAX_SHARING * instructions
    count, waiting = 0, [stack]
    while waiting:
        parts = waiting.pop()
        if isinstance(parts, str):
            continue
        count += len(parts)
        if count > limit:
            raise UnboundedFile(f"{where}: must be at most {limit:,} values, counting again what they share")
        waiting += parts


def _instructions(file: IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    try:
        for instruction, argument, _ in pickletools.genops(file):
            yield instruction, argument
    except ValueError as error:  # as `torch.load` raises it
        raise pickle.UnpicklingError(f"not a pickle: {error}") from error

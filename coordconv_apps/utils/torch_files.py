"""Bound the memory that a file of ``torch.save`` takes: it may come from a stranger.

``torch.load(weights_only=True)`` runs no code, but a few hundred bytes can make it allocate gigabytes.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from coordconv_apps.utils.errors import UserError

_GROWING = re.compile(
    r"\w+\.bytearray|torch\.(\w+\.)?sparse\..*|torch\.\w+Tensor|.*\._rebuild_(sparse_tensor|device_tensor_from_\w+)"
)
"""What `torch.load` allows, and what creates more than the file holds from a number or from an expanded tensor."""
_LEGACY_PICKLES = 5
"""Number of pickles at the beginning of a file of torch before 1.6, which is no zip file."""


class UnboundedFile(UserError, ValueError):
    """Reading a file would take more memory than its size allows."""


def check_torch_file(file: Path | str | IO[bytes], where: str) -> None:
    """Check a file before `torch.load` opens it; nothing in it is loaded. Files of ``.safetensors`` need no check.

    Args:
        file: The file, or its path. A damaged one raises errors of many kinds.
        where: The argument and its value, for messages.

    Raises:
        UserError: The checksum of its description of the values is wrong.
        UnboundedFile: Its parts are compressed or overlap, or it names what becomes larger than the file.
    """
    if isinstance(file, Path | str):
        if not str(file).endswith(".safetensors"):
            with open(file, "rb") as opened:
                check_torch_file(opened, where)
        return
    start = file.tell()
    is_zip = file.read(4) == b"PK\x03\x04"  # as torch decides
    file.seek(start)
    for pickled in _pickles_in_zip(file, where) if is_zip else [file] * _LEGACY_PICKLES:
        for name in _names(pickled):
            if _GROWING.fullmatch(name):
                raise UnboundedFile(f"{where}: must hold dense tensors and plain values; it names {name}")
    file.seek(start)


def _pickles_in_zip(file: IO[bytes], where: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        # torch stores all parts as they are, and begins with the first. What is compressed may be larger than memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UnboundedFile(f"{where}: must be as torch saves it, not a compressed zip file")
        if sum(entry.file_size for entry in entries) > file.seek(0, 2) or not _begins_with_first(file, archive):
            raise UnboundedFile(f"{where}: must be as torch saves it; the parts of this zip file overlap")
        for entry in entries:
            if entry.filename.lower().endswith("data.pkl"):  # torch ignores case
                try:
                    content = archive.read(entry)
                except zipfile.BadZipFile as error:  # torch does not check the checksums
                    raise UserError(
                        f"{where}: damaged, the checksum of {entry.filename} is wrong; choose another file"
                    ) from error
                yield io.BytesIO(content)


def _begins_with_first(file: IO[bytes], archive: zipfile.ZipFile) -> bool:
    """Return whether the list of parts that Python finds begins with a part at the start of the file, as torch's does.

    Otherwise torch may read another list.
    """
    file.seek(archive.start_dir + 42)  # the field of the first part's place
    return int.from_bytes(file.read(4), "little") == archive.infolist()[0].header_offset == 0


def _names(pickled: IO[bytes]) -> Iterator[str]:
    """Yield the names of the classes and functions that a pickle names."""
    try:
        for instruction, argument, _ in pickletools.genops(pickled):
            if instruction.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
    except ValueError as error:  # as `torch.load` raises it
        raise pickle.UnpicklingError(f"not a pickle: {error}") from error

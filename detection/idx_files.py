"""Read IDX files, MNIST's format."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from detection.gray_images import Bytes

_MOST_COMPRESSED = 1032
"""Largest ratio of gzip's compression."""


def read_idx(path: Path) -> Bytes:
    """Read an IDX file of unsigned bytes, gzipped or not, in the shape that its header gives.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not an IDX file of unsigned bytes, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such IDX file")
    with path.open("rb") as plain:
        is_compressed = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            shape = _read_shape(file, path)
            size = math.prod(shape)
            most = path.stat().st_size * (_MOST_COMPRESSED if is_compressed else 1)
            # One byte more, to notice what is left; never more than the file can hold, whatever its header declares.
            body = file.read(min(size, most) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error
    if len(body) != size:
        found = f"more than {size}" if len(body) > size else f"{len(body)}"
        raise ValueError(f"{path}: shape {shape} needs {size} bytes, {found} found")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_shape(file: BinaryIO | gzip.GzipFile, path: Path) -> tuple[int, ...]:
    """Read the header of an IDX file.

    Two zeros, the type (8: unsigned byte), the number of axes, and each axis as a big-endian 32-bit number.
    """
    start = file.read(4)
    axes = file.read(4 * start[3]) if len(start) == 4 and start[:3] == b"\0\0\x08" else b""
    if not axes or len(axes) < 4 * start[3]:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    return struct.unpack(f">{start[3]}I", axes)

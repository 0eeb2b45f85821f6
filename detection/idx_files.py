"""Read IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from detection.gray_images import Bytes


def read_idx(path: Path) -> Bytes:
    """Read an IDX file of unsigned bytes.

    Args:
        path: The file, gzipped or not.

    Returns:
        uint8, in the shape that the file's header gives.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not an IDX file of unsigned bytes, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such IDX file")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: damaged gzip file ({error})") from error
    # Header: two zeros, the type (8: unsigned byte), the number of axes, and each axis as a big-endian 32-bit number.
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content, ">u4", content[3], offset=4).tolist())
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(body) != math.prod(shape):
        raise ValueError(f"{path}: shape {shape} needs {math.prod(shape)} bytes, {len(body)} found")
    return body.reshape(shape)

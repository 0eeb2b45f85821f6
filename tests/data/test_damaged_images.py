"""About 250 damaged image files: each is read or named, in bounded time and memory, and nothing else happens."""

from __future__ import annotations

import io
import os
import resource
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from coordconv_apps.data.image_files import ImageFiles, find_images
from detection.gray_images import read_gray
from tests.data.damage import damaged, special_files

FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}
FORMATS |= {"tga": "TGA", "pcx": "PCX", "sgi": "SGI", "ico": "ICO"}
FORMATS |= {"jp2": "JPEG2000"} if features.check("jpg_2000") else {}
FORMATS |= {"avif": "AVIF"} if features.check("avif") else {}
HUGE = 60_000
"""Declared width and height of images whose files are small: 10 GB of pixels."""


def whole(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def huge_files() -> dict[str, bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0))
    bmp = bytearray(whole("BMP"))
    bmp[18:26] = struct.pack("<ii", HUGE, HUGE)
    tga = bytearray(whole("TGA"))
    tga[12:16] = struct.pack("<HH", HUGE, HUGE)
    gif = bytearray(whole("GIF"))
    gif[6:10] = struct.pack("<HH", HUGE, HUGE)
    return {
        "png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""),
        "bmp": bytes(bmp),
        "tga": bytes(tga),
        "gif": bytes(gif),
        "ppm": f"P6 {HUGE} {HUGE} 255\n".encode() + bytes(1000),
    }


@pytest.fixture(name="damaged")
def damaged_folder(tmp_path: Path) -> Path:
    """A folder of damaged files and one good one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for suffix, kind in FORMATS.items():
        for name, data in (damaged(whole(kind)) | {"other": whole("PNG")[:60]}).items():
            (folder / f"{name}.{suffix}").write_bytes(data)
    for suffix, data in huge_files().items():
        (folder / f"huge.{suffix}").write_bytes(data)
    special_files(folder, ".png")
    os.mkfifo(folder / "pipe")
    Image.new("RGB", (5, 5)).save(folder / "good.png")
    return folder


def test_damaged_files_are_read_or_named(damaged: Path) -> None:
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each unreadable file is warned of
        found = find_images(damaged, "data.folder", "skip")
        assert "good.png" in found.names
        names = sorted({path.name for path in damaged.iterdir() if path.suffix} - {"good.png"})
        assert len(names) > 200
        files = ImageFiles(damaged, names, "data.folder", "skip")
        read = {name: files.try_read(index) for index, name in enumerate(names)}
        for name, image in read.items():
            if image is not None:
                assert read_gray(damaged / name).shape == image.shape[1:]
                continue
            with pytest.raises(ValueError, match=r": not a readable image \(") as told:
                read_gray(damaged / name)
            assert str(told.value).isprintable()
    assert all(line.isprintable() for line in found.message.splitlines())
    for name, image in read.items():
        assert image is None or (image.dtype == torch.uint8 and image.shape[0] == 3), name
    never = ("huge", "empty", "zeros", "text", "pipe", "socket", "zero", "one", "two", "gone", "new\nline")
    assert [name for name, image in read.items() if image is not None and name.rsplit(".", 1)[0] in never] == []
    assert sum(image is None for image in read.values()) > 120
    assert time.process_time() - started < 20
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000, f"{grown} KiB more than before"

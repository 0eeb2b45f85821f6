"""Where data sets are found, and how long a download may wait."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA_VARIABLE = "COORDCONV_DATA"


DOWNLOAD_TIMEOUT = 20.0
"""Seconds that a download waits for an answer."""


def data_root(root: str | None = None) -> Path:
    """The folder that holds the data sets: ``root`` if given, else ``$COORDCONV_DATA``, else ``./data``."""
    if root is None:
        root = os.environ.get(DATA_VARIABLE, "data")
    return Path(root).expanduser()


@contextmanager
def download_timeout() -> Iterator[None]:
    """Ends a download that gets no answer: torchvision waits without limit, behind some firewalls for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

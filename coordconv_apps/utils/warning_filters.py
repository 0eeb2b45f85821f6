"""Filter out log messages and warnings that are known to be harmless."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from coordconv_apps.utils.errors import debugging

HARMLESS = (
    # num_workers is an argument of every application, described in its help.
    ".*does not have many workers which may be a bottleneck.*",
    # Values of single steps are logged in addition to the means over an epoch.
    "The number of training batches .* is smaller than the logging interval.*",
    # Callbacks of the training, such as early stopping, do nothing in other commands.
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided.*",
    # Lightning uses deprecated functions of newer versions of torch and jsonargparse.
    r"\s*(By default only one JsonargparseDeprecationWarning|[\w.` ]+ was deprecated in v4)",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


@contextmanager
def filter_warnings() -> Iterator[None]:
    """Hide Lightning's notes and harmless warnings, unless debugging."""
    if debugging():
        yield
        return
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

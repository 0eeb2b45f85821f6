"""Filter out log messages and warnings that are known to be harmless."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordconv_apps.utils.errors import as_storage_error, debugging

HARMLESS = (
    # num_workers is an argument of every application, described in its help.
    ".*does not have many workers which may be a bottleneck.*",
    # Values of single steps are logged in addition to the means over an epoch.
    "The number of training batches .* is smaller than the logging interval.*",
    # Callbacks of the training, such as early stopping, do nothing in other commands.
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided.*",
    # In 16-mixed precision the gradient scaler often skips the first step; the schedule counts it like all others.
    r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`.*",
    # Lightning uses deprecated functions of newer versions of torch and jsonargparse.
    r"\s*(By default only one JsonargparseDeprecationWarning|[\w.` ]+ was deprecated in v4)",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated.*",
)


SHARED = "lightning.pytorch.utilities.rank_zero"
"""The logger that all modules of Lightning share; see `_is_asked_for`."""

LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    # Callbacks and profilers report what the user has asked for.
    "lightning.pytorch.callbacks": logging.INFO,
    "lightning.pytorch.profilers": logging.INFO,
    SHARED: logging.INFO,
}


def _is_asked_for(record: logging.LogRecord) -> bool:
    """Return whether a message is a warning, or that of a callback which the user has configured."""
    module = Path(record.pathname)
    return record.levelno > logging.INFO or (module.parent.name == "callbacks" and module.stem != "weight_averaging")


@contextmanager
def filter_warnings() -> Iterator[None]:
    """Hide Lightning's notes, except those of callbacks and profilers, and harmless warnings, unless debugging."""
    if debugging():
        yield
        return
    shared = logging.getLogger(SHARED)
    loggers = {logging.getLogger(name): level for name, level in LEVELS.items()}
    before = {logger: logger.level for logger in loggers}
    threads = threading.excepthook

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or as_storage_error(arguments.exc_value) is None:
            threads(arguments)

    threading.excepthook = in_thread
    with warnings.catch_warnings():
        for message in HARMLESS:
            warnings.filterwarnings("ignore", message)
        for logger, level in loggers.items():
            logger.setLevel(level)
        shared.addFilter(_is_asked_for)
        try:
            yield
        finally:
            threading.excepthook = threads
            shared.removeFilter(_is_asked_for)
            for logger, level in before.items():
                logger.setLevel(level)

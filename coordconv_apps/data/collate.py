"""Collate functions of the data loaders."""

from __future__ import annotations


def identity_collate(batch: object) -> object:
    """Return ``batch``: the dataset's ``__getitems__`` has made a batch already."""
    return batch

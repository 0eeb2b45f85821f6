"""Generative models on the two-shape dataset (Liu et al., 2018, section 5), and on folders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generative.tasks import GAN as GAN
    from generative.tasks import VAE as VAE

__all__ = ["GAN", "VAE"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # of any attribute
    """Import the tasks on first access, so that ``import generative`` does not import Lightning."""
    if name in __all__:
        from generative import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Generative models on the two-shape dataset (Liu et al., 2018, section 5), and on folders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordconv_apps.utils.imports import lazy_attributes

if TYPE_CHECKING:
    from generative.tasks import GAN, VAE

__all__ = ["GAN", "VAE"]

__getattr__ = lazy_attributes(__name__, "generative.tasks", __all__)

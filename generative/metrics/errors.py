"""The error of a comparison of too few images."""


class TooFewImages(ValueError):
    """There are too few real or generated images to compute a metric."""

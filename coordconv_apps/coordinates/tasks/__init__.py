"""The coordinate-transform tasks: one class for each, and their base class."""

from coordconv_apps.coordinates.tasks.base import CoordinateTask
from coordconv_apps.coordinates.tasks.classification import CoordinateClassification
from coordconv_apps.coordinates.tasks.regression import CoordinateRegression
from coordconv_apps.coordinates.tasks.rendering import CoordinateRendering

__all__ = ["CoordinateClassification", "CoordinateRegression", "CoordinateRendering", "CoordinateTask"]

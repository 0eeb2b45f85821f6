"""Paired comparisons of an application's arms over seeds: ``python -m coordconv_apps.compare APP --config FILE``."""

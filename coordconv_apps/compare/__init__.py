"""Paired comparisons of arms over seeds, from run folders: ``python -m coordconv_apps.compare APP --config FILE``."""

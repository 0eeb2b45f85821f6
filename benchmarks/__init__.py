"""Measurements: each prints one table of ratios, taken in one run."""

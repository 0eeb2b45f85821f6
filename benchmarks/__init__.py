"""Benchmarks: each prints tables of ratios, measured in one run."""

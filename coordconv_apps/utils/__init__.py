"""Helpers that every other package may use: errors, files, processes, random state, argument checks, plotting."""

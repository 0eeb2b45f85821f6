"""A tiny application for tests of the command line: ``python -m tests.toy fit ...``."""

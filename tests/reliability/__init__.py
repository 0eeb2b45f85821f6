"""Trainings that are killed, stopped, divided among processes, and long: most of these tests are `slow`."""

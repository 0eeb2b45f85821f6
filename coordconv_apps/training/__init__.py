"""Training shared by all applications: base task, schedules, checkpoints, exact resume, signals, pictures, progress."""

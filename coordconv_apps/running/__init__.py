"""What surrounds a run: its arguments, folder, checkpoints, resuming, signals, logs, summary and error messages."""

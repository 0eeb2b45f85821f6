"""What a run leaves on disk: its folder, CSV log, summary and environment."""

"""Files of a run: its folder, CSV log, summary and environment."""

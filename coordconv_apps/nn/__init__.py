"""CoordConv layers and the conversion of models: they need torch and nothing else."""

"""The code blocks and commands of the documentation: read, checked, and run."""

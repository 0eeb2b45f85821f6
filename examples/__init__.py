"""Short scripts to read, run and copy; ``README.md`` lists them."""

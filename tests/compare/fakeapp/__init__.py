"""An application for the tests of `compare`: the command line and files of a real one, without a network."""

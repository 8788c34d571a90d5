"""The command line: ``python -m cflightning_serve COMMAND BUNDLE``."""

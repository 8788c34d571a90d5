"""The command line: one module or package per command, imported when the command runs."""

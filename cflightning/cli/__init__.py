"""The command line: one file or package for each command, imported when it is called."""

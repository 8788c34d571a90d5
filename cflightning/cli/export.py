"""The command `export`, whose options and code are those of `cflightning_export`."""

from __future__ import annotations


def run(args: list[str], started: float) -> int:
    """Export a run or checkpoint as a bundle."""
    from cflightning_export.cli import main

    return main(args[1:])

"""The command `export`, whose options and code are those of `cflightning_export`."""

from __future__ import annotations


def run(args: list[str], started: float) -> int:
    """Export a run or checkpoint as a bundle.

    Args:
        args: The command and its options.
        started: `time.perf_counter()` at the start of the process; unused.

    Returns:
        Exit status.
    """
    from cflightning_export.cli import main

    return main(args[1:])

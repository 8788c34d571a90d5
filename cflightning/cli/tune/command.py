"""The command `tune`."""

from __future__ import annotations

from cflightning.cli.imports import importing_torch
from cflightning.cli.tune.options import parse


def run(args: list[str], started: float) -> int:
    """Run `tune`.

    Args:
        args: The command and its options.
        started: `time.perf_counter()` at the start of the process.

    Returns:
        Exit status.
    """
    fit_args, options = parse(args[1:])
    with importing_torch():
        from cflightning.cli.tune.search import run_search
    return run_search(fit_args, options, started)

"""The command `tune`."""

from __future__ import annotations

from cflightning.cli.imports import importing_torch
from cflightning.cli.tune.options import parse


def run(args: list[str], started: float) -> int:
    """Run `tune`."""
    fit_args, options = parse(args[1:])
    with importing_torch():
        from cflightning.cli.tune.search import run_search
    return run_search(fit_args, options, started)

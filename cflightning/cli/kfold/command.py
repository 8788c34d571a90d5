"""The command `kfold`: its options, which are read before torch is imported, and its start."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cflightning.cli.imports import importing_torch
from cflightning.errors import ConfigError


def run(args: list[str], started: float) -> int:
    """Run `kfold`."""
    fit_args, folds, seeds = parse(args[1:])
    with importing_torch():
        from cflightning.cli.kfold.folds import run_folds
    run_folds(fit_args, folds, seeds, started)
    return 0


def parse(args: Sequence[str]) -> tuple[list[str], int | None, int]:
    """Separate the options of `kfold` from those of `fit`.

    Args:
        args: Arguments after `kfold`.

    Returns:
        Options of `fit`; number of folds, None if not given; number of seeds.

    Raises:
        ConfigError: A number is out of range.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cflightning kfold",
        usage="%(prog)s [--folds N] [--seeds N] [options of fit]",
        description="Cross-validation: fit and test every fold, each in its own run folder below RUNS/kfold_N. "
        "All metrics, their means, standard deviations and standard errors are written to kfold.json there after "
        "every run. Finished runs are kept, so the same command continues where it was stopped.",
        epilog="Takes the options of fit. Folds are parts of a random permutation (by --data.split.seed) or, with "
        "--data.split.method predefined, u1 to u5 of MovieLens 100K; --data.split.fold is set by the command.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="number of folds (--data.split.folds, 5); 1: the split as given, for --seeds",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=1, help="fits of each fold, with --model.seed and the next ones (1)"
    )
    options, fit_args = parser.parse_known_args(args)
    for name, value in (("folds", options.folds), ("seeds", options.seeds)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: must be at least 1, got {value}")
    return fit_args, options.folds, options.seeds

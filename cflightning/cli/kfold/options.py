"""The options of ``python -m cflightning kfold``, read without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cflightning.errors import ConfigError


def parse(args: Sequence[str]) -> tuple[list[str], int | None, int]:
    """Tell the command's own options from those of `fit`.

    Args:
        args: Arguments after `kfold`.

    Returns:
        Options of fit; number of folds, None where not given; number of seeds.

    Raises:
        ConfigError: a number that makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cflightning kfold",
        usage="%(prog)s [--folds N] [--seeds N] [options of fit]",
        description="Fit and test on every fold, each in a run folder of its own below RUNS/kfold_N. All figures, "
        "their means, standard deviations and standard errors go to kfold.json beside them, after every run. Finished "
        "runs are kept, so the same command goes on where it was stopped.",
        epilog="Takes the options of fit. Folds are parts of a random permutation (by --data.seed) or, with "
        "--data.split predefined, u1 to u5 of MovieLens 100K; --data.fold is the command's to set.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--folds", type=int, metavar="N", help="number of folds (--data.folds, 5); 1: the split as given, for --seeds"
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=1, help="fits of each fold, by --model.seed and the next ones (1)"
    )
    options, of_fit = parser.parse_known_args(args)
    for name, value in (("folds", options.folds), ("seeds", options.seeds)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: must be at least 1, got {value}")
    return of_fit, options.folds, options.seeds

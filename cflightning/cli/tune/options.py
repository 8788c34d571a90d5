"""The options of the command `tune`, parsed before torch is imported."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from cflightning.errors import ConfigError

DESCRIPTION = (
    "Search, by Optuna, for the settings with the lowest val/rmse or, if --model.objective is for rankings alone, with "
    "the highest val/ndcg@10. Test rows are left out; a tenth of the other rows is the validation part unless "
    "--data.split.val_fraction is given. Trials that are worse than the median after half of their epochs are stopped "
    "(pruned). RUNS/tune_N gets best.yaml, a configuration for fit; trials.csv; and, with matplotlib, history.svg. The "
    "same command continues where it was stopped."
)
EXAMPLES = """\
Takes the options of fit, in which any value can be a range, on the command line and in --config files:
  --model.l2 "{low: 0.005, high: 0.05, log: true}"    a number in between, uniform in its logarithm
  --model.dim "{low: 32, high: 128, step: 32}"        whole numbers if both ends are whole
  --model.svdpp "{choices: [both, user, none]}"       one of the values
Without a range, a small space around the defaults of EmbeddingDotTask is searched, without options that have a value.
By default for ratings; for rankings with --model.objective ials, bce, softmax, svd, ...
The first trial has the settings without ranges, so the best trial is never worse on the validation part. Of the data
options, only --data.batch_size can be a range: trials are compared on the same rows.

examples:
  python -m cflightning tune --data.path ratings.csv --trials 50 --jobs 2
  python -m cflightning tune --data.path ratings.csv --model.objective ials --data.split.method per_user
  python -m cflightning tune --config ranges.yaml --model.dim "{low: 16, high: 256, log: true}" --seconds 600
"""


class Options(NamedTuple):
    """The options of `tune` that are not those of `fit`.

    Attributes:
        trials: Trials of the search, including those of earlier commands.
        jobs: Number of processes.
        seconds: Time after which no trial is started; None for no limit.
        seed: Seed of the search.
    """

    trials: int = 30
    jobs: int = 1
    seconds: float | None = None
    seed: int = 0


def parse(args: Sequence[str]) -> tuple[list[str], Options]:
    """Separate the options of `tune` from those of `fit`.

    Args:
        args: Arguments after `tune`.

    Returns:
        Options of `fit`; the others.

    Raises:
        ConfigError: A number is out of range, or Optuna is not installed.
    """
    default = Options()
    width = min(shutil.get_terminal_size().columns - 2, 118)
    parser = argparse.ArgumentParser(
        prog="python -m cflightning tune",
        usage="%(prog)s [--trials N] [--jobs J] [--seconds S] [--seed N] [options of fit]",
        description=textwrap.fill(DESCRIPTION, width),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", default=default.trials,
        help=f"number of trials, including finished ones ({default.trials})",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="J", default=default.jobs, help="processes that share them (1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="start no trial after this time")
    parser.add_argument(
        "--seed", type=int, metavar="N", default=default.seed,
        help="seed of the search (0); with one job, the same search gives the same trials",
    )  # fmt: skip
    parsed, fit_args = parser.parse_known_args(args)
    options = Options(**vars(parsed))
    for name, value, least in (("trials", options.trials, 1), ("jobs", options.jobs, 1), ("seed", options.seed, 0)):
        if value < least:
            raise ConfigError(f"--{name}: must be at least {least}, got {value}")
    if options.seconds is not None and not options.seconds > 0:
        raise ConfigError(f"--seconds: must be above 0, got {options.seconds:g}")
    if find_spec("optuna") is None:
        raise ConfigError("tune: needs optuna, which is not installed; pip install 'cflightning[tune]'")
    return fit_args, options

"""The options of ``python -m cflightning tune``, read without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from cflightning.errors import ConfigError

EXAMPLES = """\
Takes the options of fit, in which any value may be a range, on the command line and in --config files alike:
  --model.l2 "{low: 0.005, high: 0.05, log: true}"    a number between the two, by its logarithm
  --model.dim "{low: 32, high: 128, step: 32}"        whole numbers where both ends are whole
  --model.svdpp "{choices: [both, user, none]}"        one of the values
Without a range a small space around the defaults of EmbeddingDotTask is searched, but for what is given as a value.
By default ratings are searched for; lists with --model.objective ials, bce, softmax, svd, ...
The first trial is the settings without any range, so the winner is not worse on the validation slice. Of the
data, only --data.batch_size may be a range: trials are compared on the same rows.

examples:
  python -m cflightning tune --data.path ratings.csv --trials 50 --jobs 2
  python -m cflightning tune --data.path ratings.csv --model.objective ials --data.split per_user
  python -m cflightning tune --config ranges.yaml --model.dim "{low: 16, high: 256, log: true}" --seconds 600
"""


class Options(NamedTuple):
    """What the command takes beside the options of fit.

    Attributes:
        trials: of the search, those of earlier commands included.
        jobs: processes.
        seconds: after which no trial is begun; None for no limit.
        seed: of the search.
    """

    trials: int = 30
    jobs: int = 1
    seconds: float | None = None
    seed: int = 0


def parse(args: Sequence[str]) -> tuple[list[str], Options]:
    """Tell the command's own options from those of `fit`.

    Args:
        args: Arguments after `tune`.

    Returns:
        Options of fit; the others.

    Raises:
        ConfigError: a number that makes no sense, or Optuna is missing.
    """
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m cflightning tune",
        usage="%(prog)s [--trials N] [--jobs J] [--seconds S] [--seed N] [options of fit]",
        description="Search, by Optuna, for the settings with the least val/rmse, or with the greatest val/ndcg@10 "
        "where --model.objective ranks alone. Fits only, on the rows that do not "
        "test; a tenth of these is the validation slice unless --data.val_fraction says otherwise. Trials that are "
        "worse than the median halfway through their schedule are cut short. RUNS/tune_N gets best.yaml, a "
        "config for fit; trials.csv; and, with matplotlib, history.svg. The same command goes on where it was stopped.",
        epilog=EXAMPLES,
        formatter_class=_Paragraphs,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", default=default.trials,
        help=f"trials in all, those that are finished included ({default.trials})",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, metavar="J", default=default.jobs, help="processes that share them (1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="begin no trial after so many seconds")
    parser.add_argument(
        "--seed", type=int, metavar="N", default=default.seed,
        help="of the search (0); with one job the same search comes out again",
    )  # fmt: skip
    found, of_fit = parser.parse_known_args(args)
    options = Options(**vars(found))
    for name, value, least in (("trials", options.trials, 1), ("jobs", options.jobs, 1), ("seed", options.seed, 0)):
        if value < least:
            raise ConfigError(f"--{name}: must be at least {least}, got {value}")
    if options.seconds is not None and not options.seconds > 0:
        raise ConfigError(f"--seconds: must be above 0, got {options.seconds:g}")
    if find_spec("optuna") is None:
        raise ConfigError("tune: needs optuna, which is not installed; pip install 'cflightning[tune]'")
    return of_fit, options


class _Paragraphs(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples, and fills those of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text == EXAMPLES:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)

"""The check of a search before its first trial, by a fit that stops before training."""

from __future__ import annotations

import hashlib
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from cflightning.cli.studies import fingerprint, shared_options
from cflightning.cli.tune.defaults import default_ranges
from cflightning.cli.tune.ranges import Value, as_argument, samples
from cflightning.cli.tune.trial_cli import SearchState, TrialCLI
from cflightning.errors import ConfigError


class ProbeCLI(TrialCLI):
    """Goes through a fit without training, to check the ranges and to read the data."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check that `fit` accepts the values of the ranges."""
        super().parse_arguments(parser, args)
        ranges = self.state.ranges
        if any(self._why_refused(parser, values) for values in samples(ranges)):
            for name, option_range in ranges.items():
                for values in samples({name: option_range}):
                    if reason := self._why_refused(parser, values):
                        reason = reason.removeprefix(f"--{name}: ")
                        raise ConfigError(
                            f"--{name}: fit refuses {as_argument(values[name])}, of {option_range}: {reason}"
                        )

    def _why_refused(self, parser: LightningArgumentParser, values: Mapping[str, Value]) -> str:
        """Return why `fit` refuses the values; empty if it accepts them."""
        try:
            parser.parse_args([*self.state.fit_args, *(f"--{name}={as_argument(values[name])}" for name in values)])
        except ArgumentError as error:
            return self.explain(error)
        return ""

    def before_instantiate_classes(self) -> None:
        """Keep the options that determine all metrics."""
        super().before_instantiate_classes()
        self.options = shared_options(self.config[self.subcommand])

    def fit(self, **kwargs: object) -> None:
        """Do not train; LightningCLI calls this method in place of `Trainer.fit`."""


def probe_search(state: SearchState, seed: int, started: float) -> tuple[Path, str]:
    """Check the options of a search and read its data, without writing a file.

    Args:
        state: Gets the data, the goal and, if the user named no ranges, those around the defaults.
        seed: Seed of the search.
        started: `time.perf_counter()` at the start of the process.

    Returns:
        Folder of the runs; digest of everything that determines the search.

    Raises:
        ConfigError: `fit` refuses a value of a range, or the options make no search.
        SystemExit: `fit` refuses an option.
    """
    cli = ProbeCLI(state.fit_args, state, "", started=started)
    data = cli.datamodule
    state.ranges = state.ranges or default_ranges(cli.model, data, state.args.with_value)
    options = {
        "ranges": {name: [type(option_range).__name__, *option_range] for name, option_range in state.ranges.items()},
        "rows": hashlib.sha256(data.split.parts.tobytes()).hexdigest(),
        "seed": seed,
        **cli.options,
    }
    return cli.root, fingerprint(options, data.table)

"""The description of a search: its data, ranges and fingerprint, from a fit that stops before training."""

from __future__ import annotations

import hashlib
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from cflightning import __version__
from cflightning.cli.kfold.study import fingerprint
from cflightning.cli.tune.defaults import default_ranges
from cflightning.cli.tune.ranges import Value, as_argument, samples
from cflightning.cli.tune.trial_cli import SearchState, TrialCLI, TrialProgress
from cflightning.errors import ConfigError


class SearchDescription(NamedTuple):
    """Properties of a search before its first trial.

    Attributes:
        root: Folder of the runs.
        table: Name of the table.
        rows: Training, validation and test rows.
        fingerprint: Digest of everything that determines a search but its seed.
    """

    root: Path
    table: str
    rows: tuple[int, int, int]
    fingerprint: str


class ProbeCLI(TrialCLI):
    """Goes through a fit without training, and describes the search.

    Attributes:
        description: The description.
    """

    description: SearchDescription

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Check that `fit` accepts the values of the ranges."""
        super().parse_arguments(parser, args)
        ranges = self.state.ranges
        if any(self._refusal(parser, values) for values in samples(ranges)):
            for name, one in ranges.items():
                for values in samples({name: one}):
                    if reason := self._refusal(parser, values):
                        reason = reason.removeprefix(f"--{name}: ")
                        raise ConfigError(f"--{name}: fit refuses {as_argument(values[name])}, of {one}: {reason}")

    def _refusal(self, parser: LightningArgumentParser, values: Mapping[str, Value]) -> str:
        """Return why `fit` refuses the values; empty if it accepts them."""
        options = [f"--{name}={as_argument(value)}" for name, value in values.items()]
        try:
            parser.parse_args([*self.state.fit_args, *options])
        except ArgumentError as error:
            return self.explain(error)
        return ""

    def before_instantiate_classes(self) -> None:
        """Keep the configuration that determines all metrics."""
        super().before_instantiate_classes()
        self.configuration = self.config[self.subcommand].clone().as_dict()
        self.configuration.pop("config", None)
        self.runs = Path(self.configuration["trainer"].pop("default_root_dir") or "runs")

    def fit(self, **kwargs: object) -> None:
        """Describe the search; LightningCLI calls this method in place of `Trainer.fit`."""
        data, state = self.datamodule, self.state
        state.ranges = state.ranges or default_ranges(self.model, data, state.args.with_value)
        digest = fingerprint(
            {
                "version": __version__,
                "ranges": {name: [type(one).__name__, *one] for name, one in state.ranges.items()},
                "rows": hashlib.sha256(data.split.parts.tobytes()).hexdigest(),
                **self.configuration,
            },
            data.table,
        )
        self.description = SearchDescription(self.runs, data.table.name, data.split.sizes, digest)


def describe_search(state: SearchState, started: float) -> SearchDescription:
    """Describe a search without writing a file.

    Args:
        state: Gets the data, the goal and, if the user named no ranges, those around the defaults.
        started: `time.perf_counter()` at the start of the process.

    Raises:
        ConfigError: `fit` refuses a value of a range, or the options make no search.
        SystemExit: `fit` refuses an option.
    """
    progress = TrialProgress(state.goal, lambda *_: False)
    return ProbeCLI(state.fit_args, state, progress, "", started).description

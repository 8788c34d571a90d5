"""What is known of a search before its first trial."""

from __future__ import annotations

import hashlib
from argparse import ArgumentError
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.trainer import Trainer

from cflightning import __version__
from cflightning.cli.kfold.study import fingerprint
from cflightning.cli.tune.defaults import default_ranges
from cflightning.cli.tune.fits import Shared, TrialCLI, Watch, start
from cflightning.cli.tune.ranges import as_text, samples
from cflightning.errors import ConfigError


class Facts(NamedTuple):
    """What is known before the first trial.

    Attributes:
        root: where runs lie.
        data: name of the table.
        rows: that train, validate and test.
        fingerprint: of everything that decides a search but its seed.
    """

    root: Path
    data: str
    rows: tuple[int, int, int]
    fingerprint: str


class Known(Exception):
    """Everything is known; raised where a trial would begin."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts = facts


class ProbeCLI(TrialCLI):
    """Goes as far as a fit can go without training, and finds out what the search is about."""

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Try whether fit takes what the ranges hold."""
        super().parse_arguments(parser, args)
        ranges = self.shared.ranges
        if any(self._refusal(parser, values) for values in samples(ranges)):
            for name, one in ranges.items():
                for values in samples({name: one}):
                    if reason := self._refusal(parser, values):
                        reason = reason.removeprefix(f"--{name}: ")
                        raise ConfigError(f"--{name}: fit refuses {as_text(values[name])}, of {one}: {reason}")

    def _refusal(self, parser: LightningArgumentParser, values: Mapping[str, Any]) -> str:
        """Why fit does not take these values; empty where it does."""
        try:
            parser.parse_args([*self.shared.args, *(f"--{name}={as_text(value)}" for name, value in values.items())])
        except ArgumentError as error:
            return self.explain(error)
        return ""

    def before_instantiate_classes(self) -> None:
        """What decides all figures."""
        super().before_instantiate_classes()
        self.decisive = self.config[self.subcommand].clone().as_dict()
        self.decisive.pop("config", None)
        self.root = Path(self.decisive["trainer"].pop("default_root_dir") or "runs")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Read the data, and stop."""
        data, shared = self.datamodule, self.shared
        shared.lend(data)
        shared.ranges = shared.ranges or default_ranges(self.model, data, shared.asked.given)
        decisive = {
            "version": __version__,
            "ranges": {name: [type(one).__name__, *one] for name, one in shared.ranges.items()},
            "rows": hashlib.sha256(data.split.parts.tobytes()).hexdigest(),
            **self.decisive,
        }
        found = fingerprint(decisive, data.table)
        raise Known(Facts(self.root, data.table.name, data.split.sizes, found))


def probe(shared: Shared, started: float | None) -> Facts:
    """What the search is about; nothing is written.

    Args:
        shared: gets the table, what is chosen by and, where the user has given no ranges, those around the defaults.
        started: `time.perf_counter()` when the process began.

    Raises:
        ConfigError: a range that fit does not take, or options that make no search.
        SystemExit: options that fit does not take.
    """
    try:
        start(shared.args, partial(ProbeCLI, shared, Watch(shared.goal, lambda *_: False), ""), started)
    except Known as known:
        return known.facts
    raise AssertionError

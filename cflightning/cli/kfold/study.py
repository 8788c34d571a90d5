"""A study: the runs of one configuration over folds and seeds, and the variation of their metrics."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cflightning.errors import ConfigError
from cflightning.utils.files import write_json

REPORT = "kfold.json"
COLUMNS = {
    "test RMSE": ("test/rmse", 4),
    "MAE": ("test/mae", 4),
    "baseline": ("test/baseline_rmse", 4),
    "RMSE gain": ("test/rmse_gain", 4),
    "nDCG@10": ("test/ndcg@10", 4),
    "val RMSE": ("val/rmse", 4),
    "epochs": ("epochs", 0),
    "train, s": ("seconds/train", 1),
}
"""Columns of the printed table: title -> metric, decimals."""
Fold = int | str | None
"""A fold: 1, 2, …, or u1, u2, …; None for the split as configured."""


class Run(NamedTuple):
    """One finished fit.

    Attributes:
        fold: The fold.
        seed: Seed of the initial parameters.
        folder: Name of the run folder in that of the study.
        metrics: Name -> value, as in its `metrics.json`.
    """

    fold: Fold
    seed: int
    folder: str
    metrics: Mapping[str, float]


def summarise(runs: Iterable[Run]) -> dict[str, dict[str, float]]:
    """Return mean and variation of every metric that all runs have, except ends of intervals and times of the process.

    Seeds of a fold are averaged first, so the sample consists of folds; with a single fold it consists of seeds.
    The training parts of folds overlap, so their metrics are correlated, and no unbiased estimate of the variance of
    the mean exists (Bengio & Grandvalet 2004): `se` is a guide, and rather too small.

    Args:
        runs: One or more.

    Returns:
        `mean`; `sd` (sample standard deviation) and `se` (standard error of the mean) of two or more; `sd_over_seeds`
        (within a fold) with several folds and seeds. Each is metric name -> value.
    """
    folds: dict[Fold, list[Mapping[str, float]]] = {}
    for run in runs:
        folds.setdefault(run.fold, []).append(run.metrics)
    names = set.intersection(*(set(metrics) for fold in folds.values() for metrics in fold))
    names = {name for name in names if not name.endswith(("_low", "_high", "/import", "/total"))}
    summary: dict[str, dict[str, float]] = {"mean": {}, "sd": {}, "se": {}, "sd_over_seeds": {}}
    for name in sorted(names):
        values = [[metrics[name] for metrics in fold] for fold in folds.values()]
        units = [statistics.mean(fold) for fold in values] if len(values) > 1 else values[0]
        summary["mean"][name] = statistics.mean(units)
        if len(units) > 1:
            summary["sd"][name] = statistics.stdev(units)
            summary["se"][name] = summary["sd"][name] / len(units) ** 0.5
        if len(values) > 1 and (within := [statistics.variance(fold) for fold in values if len(fold) > 1]):
            summary["sd_over_seeds"][name] = statistics.mean(within) ** 0.5
    return {name: metrics for name, metrics in summary.items() if metrics}


def format_line(first: str, metrics: Mapping[str, float] | None, note: str = "") -> str:
    """Format a line of the printed table, or its heading if there are no metrics."""
    cells = [f"{first:14}"]
    for title, (name, digits) in COLUMNS.items():
        value = metrics.get(name) if metrics else None
        cells.append(f"{title if metrics is None else '' if value is None else f'{value:.{digits}f}':>9}")
    return "  ".join([*cells, note]).rstrip()


class Study:
    """The runs of one configuration; their report is rewritten after every run.

    Args:
        folder: Folder of the study.
        fingerprint: Digest of the configuration and the data.
        table: Name of the table, for the report.
        writes: Whether this process writes the report.

    Raises:
        ConfigError: The report is damaged.
    """

    def __init__(self, folder: Path, fingerprint: str, table: str, writes: bool = True) -> None:
        self.folder, self.fingerprint, self.table, self.writes = folder, fingerprint, table, writes
        self.runs: list[Run] = []
        report = folder / REPORT
        if report.is_file():
            try:
                self.runs = [Run(**run) for run in json.loads(report.read_text(encoding="utf-8")).get("runs", [])]
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"{report}: must list the finished runs, got {error}; delete it") from error

    def find(self, fold: Fold, seed: int) -> Run | None:
        """Return a finished run whose folder still exists."""
        for run in self.runs:
            if (run.fold, run.seed) == (fold, seed) and (self.folder / run.folder / "metrics.json").is_file():
                return run
        return None

    def add(self, run: Run) -> None:
        """Add a run, in place of one with the same fold and seed, and write the report."""
        self.runs = [old for old in self.runs if (old.fold, old.seed) != (run.fold, run.seed)] + [run]
        if self.writes:
            content: dict[str, object] = {"fingerprint": self.fingerprint, "data": self.table}
            content |= {"runs": [run._asdict() for run in self.runs], **summarise(self.runs)}
            write_json(self.folder / REPORT, content)

"""A study: the runs of one configuration over folds and seeds, and the variation of their metrics."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cflightning.data.table import RatingTable
from cflightning.utils.files import atomic_write, make_numbered_folder

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


def fingerprint(configuration: Mapping[str, object], table: RatingTable) -> str:
    """Return a digest of everything that determines the metrics: the options and the rows of the table."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True, default=str).encode())
    digest.update(table.fingerprint.encode())
    return digest.hexdigest()[:40]


class Study:
    """The folder of all runs of one configuration; its report is rewritten after every run.

    Args:
        root: Folder of the runs. The study with this fingerprint is continued; otherwise `kfold_N` is made.
        fingerprint: Digest of the configuration and the data.
        table: Name of the table, for the report.
        write: Whether this process makes folders and writes files.
    """

    def __init__(self, root: Path, fingerprint: str, table: str, write: bool = True) -> None:
        self.fingerprint, self.table, self.write = fingerprint, table, write
        self.runs: list[Run] = []
        report = next((path for path in sorted(root.glob(f"kfold_*/{REPORT}")) if self._load(path)), None)
        self.folder = report.parent if report else root / "kfold_0"
        if not report and write:
            self.folder = make_numbered_folder(root, "kfold")
            self.save()

    def _load(self, path: Path) -> bool:
        """Read a report; False if it belongs to another study."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return False
            self.runs = [Run(**run) for run in content["runs"]]
        except (OSError, ValueError, TypeError, KeyError):  # another program's file, or an edited one
            return False
        return True

    def refresh(self) -> None:
        """Read the report again."""
        self._load(self.folder / REPORT)

    def find(self, fold: Fold, seed: int) -> Run | None:
        """Return a finished run whose folder still exists."""
        for run in self.runs:
            if (run.fold, run.seed) == (fold, seed) and (self.folder / run.folder / "metrics.json").is_file():
                return run
        return None

    def add(self, run: Run) -> None:
        """Add a run; it replaces one of the same fold and seed."""
        self.runs = [old for old in self.runs if (old.fold, old.seed) != (run.fold, run.seed)] + [run]
        self.save()

    def save(self) -> None:
        """Write the report."""
        if self.write:
            content: dict[str, object] = {"fingerprint": self.fingerprint, "data": self.table}
            content["runs"] = [run._asdict() for run in self.runs]
            if self.runs:
                content |= summarise(self.runs)
            with atomic_write(self.folder / REPORT) as out:
                out.write(json.dumps(content, indent=2) + "\n")

"""The same fit several times: what is kept of every run, and what the figures vary by."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cflightning.data.table import RatingTable
from cflightning.utils.files import claim, replacing

REPORT = "kfold.json"
COLUMNS = {  # of the table that people see: title -> metric, digits
    "test RMSE": ("test/rmse", 4),
    "MAE": ("test/mae", 4),
    "bias only": ("test/baseline_rmse", 4),
    "better by": ("test/rmse_gain", 4),
    "nDCG@10": ("test/ndcg@10", 4),
    "val RMSE": ("val/rmse", 4),
    "epochs": ("epochs", 0),
    "train, s": ("seconds/train", 1),
}


class Run(NamedTuple):
    """One fit.

    Attributes:
        fold: 1, 2, …, or u1, u2, …; None for the split as it is configured.
        seed: of the initial parameters.
        folder: of the run, below the study's.
        metrics: name -> value, as in its `metrics.json`.
    """

    fold: int | str | None
    seed: int
    folder: str
    metrics: Mapping[str, float]


def summary(runs: Iterable[Run]) -> dict[str, dict[str, float]]:
    """How every metric that all runs have varies; but for the ends of intervals, and times that are not the fit's.

    Seeds of a fold are averaged first, so that what is counted is folds; where there is one fold alone it is seeds.
    The training parts of folds overlap, so their figures hang together, and no unbiased variance of the mean exists
    (Bengio and Grandvalet 2004): `se` is a guide, and rather too small.

    Args:
        runs: one or more.

    Returns:
        `mean`; `sd` (sample standard deviation) and `se` (of the mean) of two or more; `sd_over_seeds` (within a
        fold) where there are several of both. Each is metric name -> value.
    """
    folds: dict[int | str | None, list[Mapping[str, float]]] = {}
    for run in runs:
        folds.setdefault(run.fold, []).append(run.metrics)
    names = set.intersection(*(set(metrics) for fold in folds.values() for metrics in fold))
    names = {name for name in names if not name.endswith(("_low", "_high", "/import", "/total"))}
    found: dict[str, dict[str, float]] = {"mean": {}, "sd": {}, "se": {}, "sd_over_seeds": {}}
    for name in sorted(names):
        values = [[metrics[name] for metrics in fold] for fold in folds.values()]
        units = [statistics.mean(fold) for fold in values] if len(values) > 1 else values[0]
        found["mean"][name] = statistics.mean(units)
        if len(units) > 1:
            found["sd"][name] = statistics.stdev(units)
            found["se"][name] = found["sd"][name] / len(units) ** 0.5
        if len(values) > 1 and (within := [statistics.variance(fold) for fold in values if len(fold) > 1]):
            found["sd_over_seeds"][name] = statistics.mean(within) ** 0.5
    return {name: figures for name, figures in found.items() if figures}


def line(first: str, figures: Mapping[str, float] | None, note: str = "") -> str:
    """A line of the table that people see; its heading where there are no figures."""
    cells = [f"{first:14}"]
    for title, (name, digits) in COLUMNS.items():
        value = figures.get(name) if figures else None
        cells.append(f"{title if figures is None else '' if value is None else f'{value:.{digits}f}':>9}")
    return "  ".join([*cells, note]).rstrip()


def fingerprint(configuration: Mapping[str, Any], table: RatingTable) -> str:
    """Return a digest of what decides the figures of every run: the options and the rows of the table."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True, default=str).encode())
    digest.update(table.fingerprint.encode())
    return digest.hexdigest()[:40]


class Study:
    """The folder of all runs of one configuration, and the report in it, which is renewed after every run.

    Args:
        root: where studies lie. The one with this fingerprint is gone on with; else `kfold_N` is made.
        fingerprint: of the configuration and the data.
        about: what the report says beside, for people.
        write: whether this process makes folders and writes.
    """

    def __init__(self, root: Path, fingerprint: str, about: Mapping[str, Any], write: bool = True) -> None:
        self.fingerprint, self.about, self.write = fingerprint, about, write
        self.runs: list[Run] = []
        found = next((path for path in sorted(root.glob(f"kfold_*/{REPORT}")) if self._load(path)), None)
        self.folder = found.parent if found else root / "kfold_0"
        if not found and write:
            self.folder = claim(root, "kfold")
            self.save()

    def _load(self, path: Path) -> bool:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                return False
            self.runs = [Run(**run) for run in content["runs"]]
        except (OSError, ValueError, TypeError, KeyError):  # another's file, or an edited one
            return False
        return True

    def refresh(self) -> None:
        """Read the report once more."""
        self._load(self.folder / REPORT)

    def find(self, fold: int | str | None, seed: int) -> Run | None:
        """A run that is finished, and whose folder is still there."""
        for run in self.runs:
            if (run.fold, run.seed) == (fold, seed) and (self.folder / run.folder / "metrics.json").is_file():
                return run
        return None

    def add(self, run: Run) -> None:
        """Keep a run, instead of what was there of it."""
        self.runs = [old for old in self.runs if (old.fold, old.seed) != (run.fold, run.seed)] + [run]
        self.save()

    def save(self) -> None:
        """Write the report."""
        if self.write:
            content = {"fingerprint": self.fingerprint, **self.about, "runs": [run._asdict() for run in self.runs]}
            if self.runs:
                content |= summary(self.runs)
            with replacing(self.folder / REPORT) as out:
                out.write(json.dumps(content, indent=2) + "\n")

"""Test errors on real data, with command, training seconds and bar of each.

    python tests/benchmarks/bench_accuracy.py [--only PART ...] [--seeds 3]      (or: make bench-accuracy)

Needs the real data sets (CFLIGHTNING_DATA, default ../shared/data). Every result comes from the command line, as a user
would type it; nothing is chosen on test rows. `tuned` first runs `tune` on a tenth of the training rows and
takes longest. The table of each part is written to RESULTS.md, or, with --dry, only printed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench_bars import DATA, REPOSITORY, cflightning, fit
from results import write_section

HEAD = """\
| what | command | test RMSE | training, s | bar |
| --- | --- | --: | --: | --- |
"""
U1 = "--config configs/ml-100k.yaml --data.path ml-100k"
BEST = "--config configs/ml-100k-best.yaml --data.path ml-100k"
ML_1M = "--config configs/ml-1m.yaml --data.path ml-1m"
ALL_ROWS = "--data.split.val_fraction 0"
RATINGS = "--model.objective mse"
SETS = {"u1": U1, "ml-1m": ML_1M, "ml-latest-small": f"{RATINGS} --data.path ml-latest-small",
        "movietweetings-100k": f"{RATINGS} --data.path movietweetings-100k"}  # fmt: skip


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        what: description.
        options: options of fit, with names of data sets instead of folders.
        bar: required result.
        more: whether to repeat it with other seeds.
    """

    what: str
    options: str
    bar: str = ""
    more: bool = True


FITS = [
    Row("ML-100K u1, defaults, all training rows", f"{U1} {ALL_ROWS}", "≤ .889 in ≤ 2 s"),
    Row("ML-100K u1, best", BEST, "≤ .8825 in ≤ 30 s; stretch ≤ .880"),
    Row("ML-100K u1, one dot product of 16 factors, SGD", f"{U1} {ALL_ROWS} --model.members 4 --model.compress 16",
        "≤ .886"),
    Row("ML-100K u1, one dot product of 16 factors, best", f"{BEST} --model.compress 16", "≤ .886"),
    Row("ML-1M, defaults, all training rows", f"{ML_1M} {ALL_ROWS}", "≤ .835 in ≤ 1.5 s, ≤ .8265 in ≤ 4 s"),
    Row("ML-1M, rank 32", "--config configs/ml-1m-rank32.yaml --data.path ml-1m", "≤ .8225 in ≤ 60 s", False),
    Row("ML-1M, rank 64", "--config configs/ml-1m-rank64.yaml --data.path ml-1m",
        "≤ .8210 in ≤ 180 s; stretch ≤ .8161", False),
    Row("ML-1M, autograd", f"{ML_1M} {ALL_ROWS} --model.engine autograd", "≤ .827 in ≤ 45 s; stretch ≤ .826 in ≤ 10 s",
        False),
    Row("ML-1M, autograd, two processes of one thread",
        f"{ML_1M} {ALL_ROWS} --model.engine autograd --trainer.accelerator cpu --trainer.devices 2 "
        "--trainer.strategy ddp", "within .0005 of one", False),
]  # fmt: skip
FOLDS = [
    Row("ML-100K, random 5-fold, defaults", f"{U1} {ALL_ROWS} --data.split.method kfold"),
    Row("ML-100K, random 5-fold, best", f"{BEST} --data.split.method kfold", "≤ .877; stretch ≤ .872"),
]


def typed(options: str) -> list[str]:
    """Replace the names of data sets and configs in options by paths."""
    found = []
    for word in options.split():
        known = (DATA / word).is_dir()
        found.append(str(DATA / word if known else REPOSITORY / word if word.startswith("configs/") else word))
    return found


def several(scratch: Path, options: list[str], seeds: int) -> tuple[list[float], float]:
    """Return the test error of each seed, and the median of the training seconds."""
    runs = [fit(scratch, *options, "--model.seed", seed)[0] for seed in range(seeds)]
    return [run["test/rmse"] for run in runs], statistics.median(run["seconds/train"] for run in runs)


def shown(errors: list[float]) -> str:
    spread = f" (sd {statistics.stdev(errors):.4f}, {len(errors)} seeds)" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.4f}".removeprefix("0") + spread.replace("0.", ".")


def line(what: str, command: str, errors: list[float], seconds: float, bar: str) -> str:
    text = f"| {what} | `{command}` | {shown(errors)} | {seconds:.2f} | {bar} |"
    print(text, flush=True)
    return text


def fits(scratch: Path, seeds: int) -> list[str]:
    """Single splits."""
    lines = []
    for row in FITS:
        errors, seconds = several(scratch, typed(row.options), seeds if row.more else 1)
        lines.append(line(row.what, f"fit {row.options}", errors, seconds, row.bar))
    return lines


def folds(scratch: Path, seeds: int) -> list[str]:
    """Five folds of a random permutation."""
    lines = []
    for row in FOLDS:
        with tempfile.TemporaryDirectory(dir=scratch) as root:
            cflightning("kfold", "--trainer.default_root_dir", root, *typed(row.options), cwd=scratch)
            report = json.loads((Path(root) / "kfold_0" / "kfold.json").read_text())
        errors = [run["metrics"]["test/rmse"] for run in report["runs"]]
        text = f"{statistics.mean(errors):.4f}".removeprefix("0") + f" (sd over folds {statistics.stdev(errors):.4f})"
        text = f"| {row.what} | `kfold {row.options}` | {text} | {report['mean']['seconds/train']:.2f} | {row.bar} |"
        print(text, flush=True)
        lines.append(text)
    return lines


def tuned(scratch: Path, seeds: int) -> list[str]:
    """The defaults against the best of 40 trials, both with early stopping on 5 % of the training rows."""
    lines = []
    for name, options in SETS.items():
        errors, seconds = several(scratch, typed(options), seeds)
        lines.append(line(f"{name}, defaults", f"fit {options}", errors, seconds, "within .003 of tuned"))
        with tempfile.TemporaryDirectory(dir=scratch) as root:
            search = ["tune", "--trials", "40", "--trainer.default_root_dir", root, *typed(options)]
            cflightning(*search, cwd=scratch)
            best = Path(root) / "tune_0" / "best.yaml"
            chosen = ["--config", str(best), "--data.split.val_fraction", "0.05"]
            found, seconds = several(scratch, chosen, seeds)
        text = f"tune --trials 40 {options}`, `fit --config best.yaml --data.split.val_fraction 0.05"
        off = statistics.mean(errors) - statistics.mean(found)
        lines.append(line(f"{name}, tuned", text, found, seconds, f"defaults {off:+.4f}"))
    return lines


PARTS = {"fits": fits, "folds": folds, "tuned": tuned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print only, without writing RESULTS.md")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    arguments = re.sub(r"\s*--dry\b", "", " ".join(sys.argv[1:]))
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            lines = PARTS[name](Path(scratch), options.seeds)
        made = f"{time.strftime('%Y-%m-%d')}, commit {commit}, {os.cpu_count()} cores. `bench_accuracy.py {arguments}`"
        if not options.dry:
            doc = " ".join((PARTS[name].__doc__ or "").split())
            title = f"## Accuracy: {name}\n\n{made}. {doc} Commands are those of `python -m cflightning`.\n\n"
            write_section(f"accuracy-{name}", title + HEAD + "\n".join(lines))


if __name__ == "__main__":
    main()

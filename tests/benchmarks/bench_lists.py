"""Ranking metrics on real data, with command, training seconds and bar of each.

    python tests/benchmarks/bench_lists.py [--only NAME ...] [--dry]      (or: make bench-lists)

Needs the real data sets (CFLIGHTNING_DATA, default ../shared/data). Every result comes from the command line, as a user
would type it. The table is written to RESULTS.md, or, with --dry or --only, only printed.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench_accuracy import typed
from bench_bars import REPOSITORY, fit
from results import write_section

NCF, GOWALLA = ("hr@10", "ndcg@10"), ("recall@20", "ndcg@20")
QUARTER = "--data.path ml-100k --data.split.method per_user --data.split.test_fraction 0.25 --data.split.val_fraction 0"


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        what: description.
        options: options of fit, with names of data sets instead of folders.
        metrics: metrics of the test part.
        seeds: option that is varied, and the number of its values.
        bar: required result.
    """

    what: str
    options: str
    metrics: tuple[str, ...]
    seeds: tuple[str, int] = ("model.seed", 1)
    bar: str = ""


ROWS = {
    "ncf": Row("NCF leave-one-out (ML-1M): cross-entropy", "--config configs/ncf-ml-1m.yaml --data.path ncf-ml-1m",
               NCF, ("model.seed", 5), "≥ .729 / .451 in ≤ 25 s"),
    "ncf-members": Row("the same, ensemble of three (dim 384)",
                       "--config configs/ncf-ml-1m.yaml --data.path ncf-ml-1m --model.members 3", NCF,
                       bar="≥ .731 / .4535; stretch .7334 / .4543"),
    "ncf-ials": Row("the same: implicit ALS", "--config configs/ncf-ml-1m-ials.yaml --data.path ncf-ml-1m", NCF,
                    ("model.seed", 3), "≥ .7237 / .444 in ≤ 5 s"),
    "gowalla": Row("Gowalla, dim 1024: SVD", "--config configs/gowalla.yaml --data.path gowalla", GOWALLA,
                   bar="≥ .1895 / .1565 in ≤ 10 s; stretch .190 / .1584"),
    "gowalla-64": Row("Gowalla, dim 64: softmax", "--config configs/gowalla-64.yaml --data.path gowalla", GOWALLA,
                      ("model.seed", 2), "≥ .1756 / .148 in ≤ 150 s; stretch .187 / .157"),
    "ml-100k": Row("MovieLens 100K, 75/25 per user: cross-entropy",
                   "--config configs/ml-100k-ranking.yaml --data.path ml-100k", ("ndcg@10",), ("data.split.seed", 3),
                   "≥ .475 in ≤ 1 s; best ≥ .480; stretch .4828"),
    "ml-100k-members": Row("the same, ensemble of four",
                           "--config configs/ml-100k-ranking.yaml --data.path ml-100k --model.members 4",
                           ("ndcg@10",), ("data.split.seed", 3), "best ≥ .480; stretch .4828"),
    "both": Row("ratings and ranking, the same splits", "--config configs/ml-100k-multitask.yaml --data.path ml-100k",
                ("rmse", "ndcg@10"), ("data.split.seed", 3), "within .002 and .003 of each alone"),
    "rating-only": Row("ratings alone, the same splits", f"--model.objective mse {QUARTER}", ("rmse",),
                       ("data.split.seed", 3)),
}  # fmt: skip


DEFAULTS = {
    "movielens-small": ("", "≥ .265; stretch .275"),
    "ml-latest-small": ("--data.path ml-latest-small", "≥ .288; stretch .295"),
    "ml-1m": ("--data.path ml-1m", "≥ .328; stretch .335"),
    "movietweetings": ("--data.path movietweetings-100k", "≥ .135; stretch .138"),
    "held-out": ("--data.path ml-1m --data.split.method users", "≥ .456; stretch .4625 (dim 512)"),
    "ml-100k-default": (
        "--data.path ml-100k --data.split.method per_user --data.split.test_fraction 0.25", "≥ .488; stretch .495"
    ),
}  # fmt: skip
"""Tables on which `fit` without further options is measured: options -> required nDCG@10."""


def default_lists(scratch: Path, name: str, seeds: int = 3) -> str:
    """Return a row of the table of default recommendations."""
    options, bar = DEFAULTS[name]
    runs = [fit(scratch, *typed(options), "--data.split.seed", seed)[0] for seed in range(seeds)]
    ratings = [
        fit(scratch, *typed(options), "--model.objective", "mse", "--data.split.seed", seed)[0]["seconds/train"]
        for seed in range(seeds if "users" not in options else 0)
    ]
    means = {
        title: statistics.mean(run[f"test/{key}ndcg@10"] for run in runs)
        for key, title in {
            "": "fit",
            "popularity/": "popularity",
            "item-knn/": "item neighbours",
            "ease/": "EASE",
        }.items()
    }
    best = max((title for title in means if title != "fit"), key=means.__getitem__)
    seconds = statistics.median(run["seconds/train"] for run in runs)
    ratio = f"{seconds / statistics.median(ratings):.2f}" if ratings else "–"
    values = shown([run["test/ndcg@10"] for run in runs])
    return f"| {name} | `fit {options}` | {values} | {bar} | {best} {shown([means[best]])} | {seconds:.2f} | {ratio} |"


def shown(values: list[float]) -> str:
    spread = f" (sd {statistics.stdev(values):.4f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}".removeprefix("0") + spread.replace("0.", ".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *DEFAULTS], default=[*ROWS, *DEFAULTS])
    parser.add_argument("--dry", action="store_true", help="print only, without writing RESULTS.md")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = ["| what | command | seeds | metrics | training, s | bar |", "| --- | --- | --: | --- | --: | --- |"]
    with tempfile.TemporaryDirectory() as scratch:
        defaults = [
            "| table | command | nDCG@10, 3 splits | bar | best baseline | training, s | ratio to ratings alone |",
            "| --- | --- | --- | --- | --- | --: | --: |",
        ]
        for name in options.only:
            if name in DEFAULTS:
                defaults.append(default_lists(Path(scratch), name))
                print(defaults[-1], flush=True)
                continue
            row = ROWS[name]
            option, count = row.seeds
            runs = [fit(Path(scratch), *typed(row.options), f"--{option}", seed)[0] for seed in range(count)]
            metrics = ", ".join(f"{metric} {shown([run[f'test/{metric}'] for run in runs])}" for metric in row.metrics)
            seconds = statistics.median(run["seconds/train"] for run in runs)
            lines.append(
                f"| {row.what} | `fit {row.options}` | {count} of {option} | {metrics} | {seconds:.2f} | {row.bar} |"
            )
            print(lines[-1], flush=True)
    made = f"{time.strftime('%Y-%m-%d')}, commit {commit}, {os.cpu_count()} cores."
    if not options.dry and set(DEFAULTS) <= set(options.only):
        note = '`make bench-lists ARGS="--only ' + " ".join(DEFAULTS) + '"`. Seeds 0, 1 and 2 of the split.'
        write_section("default lists", f"## Default recommendations\n\n{made} {note}\n\n" + "\n".join(defaults))
    if not options.dry and set(ROWS) <= set(options.only):
        made = f"{time.strftime('%Y-%m-%d')}, commit {commit}, {os.cpu_count()} cores. `make bench-lists`."
        note = (
            "Ranking of the whole catalogue without the items of the training part, except for NCF, which ranks among "
            "99 negatives (a negative that equals the test item is dropped; the two items without training rows are "
            "misses)."
        )
        write_section("lists", f"## Recommendations\n\n{made} {note}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()

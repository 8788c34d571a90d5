"""A hundred million ratings on the command line: seconds per epoch, and memory relative to columns and tables.

    python tests/benchmarks/bench_large.py [--users 1000000] [--items 100000] [--per-user 100]   (or: make bench-large)

Writes synthetic ratings as Parquet, fits once (which reads and caches the columns), and fits again from the cache.
Memory is that of anonymous pages, sampled; memory-mapped columns belong to the page cache. The result is written to
RESULTS.md. Linux only (/proc).
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from results import write_section

from cflightning.evaluation.run_metrics import read_metrics

DIM = 64
MB = 2**20


def write(path: Path, users: int, items: int, per_user: int) -> None:
    """Write ratings from 1 to 5 of known factors; every user rates `per_user` different items, by popularity."""
    rng = np.random.default_rng(0)
    weight = 1 / (np.arange(items) + items / 200)
    bounds = np.cumsum(weight) / weight.sum()
    names = rng.permutation(items).astype(np.int32)
    p, q = (rng.standard_normal((rows, 4), dtype=np.float32) for rows in (users, items))
    user_bias, item_bias = (rng.standard_normal(rows, dtype=np.float32) for rows in (users, items))
    schema = pa.schema([("user", pa.int32()), ("item", pa.int32()), ("rating", pa.float32())])
    with pq.ParquetWriter(path, schema) as file:
        for low in range(0, users, 10_000):
            some = np.arange(low, min(low + 10_000, users), dtype=np.int32)
            draws = int(per_user * 1.3) + 8
            rank = np.searchsorted(bounds, rng.random((len(some), draws))).astype(np.int32)
            rank = np.sort(np.minimum(rank, items - 1), axis=1)
            key = rng.random(rank.shape, dtype=np.float32)
            key[:, 1:][rank[:, 1:] == rank[:, :-1]] = 2  # repeated items are moved to the end
            kept = np.argpartition(key, per_user, axis=1)[:, :per_user]
            if (np.take_along_axis(key, kept, 1) > 1).any():
                sys.exit("bench_large: too few items for this number of ratings per user")
            item, user = names[np.take_along_axis(rank, kept, 1)].ravel(), np.repeat(some, per_user)
            rating = 3.6 + 0.4 * user_bias[user] + 0.5 * item_bias[item] + 0.25 * (p[user] * q[item]).sum(1)
            rating += 0.9 * rng.standard_normal(len(user), dtype=np.float32)
            columns = {"user": user + 1, "item": item + 1, "rating": np.clip(np.round(rating), 1, 5)}
            file.write_table(pa.table(columns, schema=schema))


def watched(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a process; return wall-clock seconds, peak anonymous and peak resident memory in MiB."""
    environment = os.environ | {"CFLIGHTNING_CACHE": str(folder / "cache")}
    start, most = time.perf_counter(), {"RssAnon": 0, "VmHWM": 0}
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            for name in most:
                if found := re.search(rf"{name}:\s+(\d+) kB", status):
                    most[name] = max(most[name], int(found[1]))
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"bench_large: {command} failed")
    return time.perf_counter() - start, most["RssAnon"] / 1024, most["VmHWM"] / 1024


def fit(folder: Path, epochs: int) -> tuple[dict[str, float], tuple[float, float, float]]:
    with tempfile.TemporaryDirectory(dir=folder) as root:
        found = watched(
            [sys.executable, "-m", "cflightning", "fit", "--data.path", "ratings.parquet", "--model.dim", str(DIM),
             "--model.objective", "mse",
             "--data.split.test_fraction", "0.01", "--data.split.val_fraction", "0.01",
            "--trainer.max_epochs", str(epochs),
             "--trainer.default_root_dir", root, "--trainer.enable_progress_bar", "false"], folder,
        )  # fmt: skip
        [metrics] = Path(root).glob("*/metrics.json")
        return read_metrics(metrics), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--per-user", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    n = options.users * options.per_user
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder / "ratings.parquet", options.users, options.items, options.per_user)
        idle = [sys.executable, "-c", "import numba, cflightning.cli.training.cli, time; time.sleep(1)"]
        _, base, _ = watched(idle, folder)
        first, (_, first_peak, _) = fit(folder, 1)
        metrics, (wall, peak, resident) = fit(folder, options.epochs)
    columns = 12 * n / MB
    tables = (options.users + options.items) * (4 * DIM + 32) / MB  # factors and side tables
    epoch = metrics["seconds/train"] / metrics["epochs"]
    lines = [
        "## 100 million ratings",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores. `make bench-large`: {n:,} synthetic ratings of "
        f"{options.users:,} users and {options.items:,} items, dim {DIM}, command line with defaults.",
        "",
        "| what | measured | bar |",
        "| --- | ---: | ---: |",
        f"| training, one epoch | {epoch:.1f} s, {metrics['train/ratings_per_second'] / 1e6:.1f} M ratings/s | 15 s |",
        f"| columns and embedding tables | {columns:,.0f} + {tables:,.0f} MiB | |",
        f"| peak memory of the process | {peak:,.0f} MiB, {peak / (columns + tables):.2f} times columns and tables "
        "| 1.3 |",
        f"| of which imports (torch, Lightning, numba) | {base:,.0f} MiB; the rest is "
        f"{(peak - base) / (columns + tables):.2f} times that | |",
        f"| resident, including memory-mapped columns | {resident:,.0f} MiB | |",
        f"| reading and splitting, first time | {first['seconds/data']:.0f} s, peak {first_peak:,.0f} MiB | |",
        f"| the same from the cache | {metrics['seconds/data']:.0f} s | |",
        f"| end to end, {options.epochs} epochs | {wall:.0f} s (test RMSE {metrics['test/rmse']:.4f}) | |",
    ]
    print("\n".join(lines))
    write_section("large", "\n".join(lines))


if __name__ == "__main__":
    main()

"""Time per rating of the fused step by size of the tables, beside the lower bound of memory traffic.

    python tests/benchmarks/bench_scaling.py [--only ratings users dim]      (or: make bench-scaling)

Synthetic ratings in memory, by the engine alone: 1 to 100 million ratings, 10,000 to 10 million users, dim 16
to 256, one and two threads, alternating; the faster of two epochs after a warm-up epoch. Writes the table to
RESULTS.md and the plot beside it. 100 million ratings of 10 million users take 6 GB at dim 64.

**Lower bound.** An epoch moves the columns once (12 bytes per rating) and, for every cell, the vectors of its users and
items in and out: each vector `STAGES` times, unless it has fewer ratings. The bound is this traffic at the speed of a
large copy on one thread, with perfect caches.
"""

import argparse
import datetime
import gc
import os
import statistics
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from bench_kernel import copy_speed
from results import write_section

from cflightning.engines.fused import FusedDescent, StageLoader
from cflightning.engines.stage_engine import STAGES, RowwiseAdagrad
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

matplotlib.use("svg")
import matplotlib.pyplot as plt

M = 1_000_000
SERIES = {  # name -> (ratings, users, items, dim)
    "ratings": [(M, 10_000, 5_000, 64), (10 * M, 100_000, 20_000, 64), (100 * M, M, 100_000, 64)],
    "users": [(20 * M, users, 20_000, 64) for users in (10_000, 100_000, M, 10 * M)] + [(100 * M, 10 * M, 100_000, 64)],
    "dim": [(10 * M, 100_000, 20_000, dim) for dim in (16, 32, 64, 128, 256)],
}
TITLES = {"ratings": "ratings (users and items grow along)", "users": "users", "dim": "latent factors"}


def columns(ratings: int, users: int, items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample users uniformly and items by a power law: int32 indices from 1."""
    rng = np.random.default_rng(0)
    user = rng.integers(1, users + 1, ratings, dtype=np.int32)
    weight = 1 / (np.arange(items) + items / 200)
    bounds = np.cumsum(weight) / weight.sum()
    item = np.empty(ratings, np.int32)
    for at in range(0, ratings, 4 * M):
        part = item[at : at + 4 * M]
        part[:] = np.minimum(np.searchsorted(bounds, rng.random(len(part), dtype=np.float32)), items - 1) + 1
    rating = rng.integers(1, 6, ratings, dtype=np.int8).astype(np.float32)
    return torch.from_numpy(user), torch.from_numpy(item), torch.from_numpy(rating)


def floor_bytes(ratings: int, users: int, items: int, dim: int) -> float:
    """Return the minimum memory traffic of a rating in bytes."""
    row = 4 * dim + 32
    visits = sum(min(rows * STAGES, ratings) for rows in (users, items))
    return 12 + 2 * row * visits / ratings


def measure(ratings: int, users: int, items: int, dim: int) -> tuple[float, float]:
    """Measure the seconds of an epoch on one and on two threads."""
    network = EmbeddingDot(users + 1, items + 1, dim, (1.0, 5.0), 3.0, margin=0.125)
    loader = StageLoader(*columns(ratings, users, items), network=network)
    engines = [
        FusedDescent(network, loader, RowwiseAdagrad([network], 1e-3), Penalty(0.008, 0.5), threads=threads)
        for threads in (1, 2)
    ]
    seconds: list[list[float]] = [[], []]
    for epoch in range(3):
        for engine, times in zip(engines, seconds, strict=True):
            loader.set_epoch(epoch)
            start = time.perf_counter()
            for stage in loader:
                engine.train_batch(stage, 1e-3)
            times.append(time.perf_counter() - start)
    for engine in engines:
        engine.close()
    del network, loader, engines
    gc.collect()
    one, two = (min(times[1:]) for times in seconds)
    return one, two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES))
    options = parser.parse_args()
    torch.set_num_threads(2)
    speed = copy_speed()
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    lines = [
        "## Time per rating",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores; copy {speed / 1e9:.1f} GB/s on one thread. "
        "`make bench-scaling`",
        "",
        "| ratings | users | items | dim | tables | lower bound, ns per rating | 1 thread, ns | 2 threads, ns "
        "| ratio | 2 threads, M ratings/s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    figure, axes = plt.subplots(1, len(options.only), figsize=(4.2 * len(options.only), 3.6), squeeze=False)
    for axis, name in zip(axes[0], options.only, strict=True):
        drawn = []
        for case in SERIES[name]:
            ratings, users, items, dim = case
            first = case not in known
            if first:
                known[case] = measure(*case)
            one, two = (seconds / ratings * 1e9 for seconds in known[case])
            floor = floor_bytes(*case) / speed * 1e9
            size = (users + items) * (4 * dim + 32) / 1e6
            row = (f"| {ratings // M} M | {users:,} | {items:,} | {dim} | {size:,.0f} MB | {floor:.1f} | {one:.1f} "
                   f"| {two:.1f} | {one / two:.2f} | {1e3 / two:.1f} |")  # fmt: skip
            if first:
                lines.append(row)
                print(row, flush=True)
            if name != "users" or ratings == 20 * M:
                drawn.append(({"ratings": ratings, "users": users, "dim": dim}[name], one, two, floor))
        x, ones, twos, floors = zip(*drawn, strict=True)
        for values, label, style in ((ones, "1 thread", "o-"), (twos, "2 threads", "s-"), (floors, "floor", "k--")):
            axis.plot(x, values, style, label=label)
        axis.set(xscale="log", xlabel=TITLES[name], ylim=(0, None))
        if name == "dim":
            axis.set_xticks(x, labels=map(str, x))
            axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("ns a rating")
    axes[0][0].legend(loc="center right", bbox_to_anchor=(1, 0.3))
    figure.suptitle("Fused step: time per rating", fontsize=11)
    figure.tight_layout()
    picture = Path(__file__).with_name("scaling.svg")
    figure.savefig(picture, metadata={"Date": None})
    lines += ["", f"![Time per rating by size of the tables]({picture.name})"]
    write_section("scaling", "\n".join(lines))
    print(f"median of two threads over one: {statistics.median(one / two for one, two in known.values()):.2f}")


if __name__ == "__main__":
    main()

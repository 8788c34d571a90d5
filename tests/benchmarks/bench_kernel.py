"""Speed of the fused step: ratings per second of whole epochs for 1 and 2 threads and several dims.

    python tests/benchmarks/bench_kernel.py [--rows 900000] [--repeats 5]      (or: make bench-kernel)

Synthetic ratings of the size of MovieLens 1M. Every result is the median of the repeats, with alternating
numbers of threads, without compilation (the first pass of every dim). For comparison, the rate of moving the same bytes
at the speed of a large copy on one thread; the tables fit into the caches, which are faster, so the step can exceed it.
"""

import argparse
import statistics
import threading
import time

import numpy as np
import torch
from numba import njit

from cflightning.engines.fused import FusedDescent, StageLoader
from cflightning.engines.stage_engine import RowwiseAdagrad
from cflightning.models.embedding_dot import EmbeddingDot
from cflightning.models.penalty import Penalty

USERS, ITEMS = 6041, 3707


def copy_speed() -> float:
    """Return the bandwidth of a large copy on one thread in bytes per second, reads plus writes."""
    source = np.ones(1 << 27, np.uint8)
    target = np.empty_like(source)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(seconds)


@njit(nogil=True)
def spin(n: int) -> int:
    state = np.uint64(1)
    for _ in range(n):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
    return state


def two_threads() -> float:
    """Return the speed-up of two threads for arithmetic in registers, the maximum on this machine."""
    spin(1)
    ratios = []
    for _ in range(7):
        seconds = []
        for count in (1, 2):
            threads = [threading.Thread(target=spin, args=(50_000_000,)) for _ in range(count)]
            start = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds.append((time.perf_counter() - start) / count)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def epoch(engine: FusedDescent, loader: StageLoader, number: int) -> float:
    loader.set_epoch(number)
    start = time.perf_counter()
    for stage in loader:
        engine.train_batch(stage, 1e-3)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    user, item = (torch.from_numpy(rng.integers(1, rows, options.rows)) for rows in (USERS, ITEMS))
    rating = torch.from_numpy(rng.integers(1, 6, options.rows).astype(np.float32))
    speed = copy_speed()
    print(f"{options.rows:,} ratings, {USERS:,} x {ITEMS:,} rows; copy {speed / 1e9:.0f} GB/s on one thread")
    print(f"two threads of pure arithmetic do {two_threads():.2f} times the work of one on this machine")
    print(f"{'dim':>4} {'bytes/rating':>13} {'copy M/s':>10} {'1 thread M/s':>13} {'2 threads M/s':>14} {'ratio':>6}")
    for dim in (16, 32, 64, 128, 256):
        network = EmbeddingDot(USERS, ITEMS, dim, (1.0, 5.0), 3.0, margin=0.125)
        loader = StageLoader(user, item, rating.clone(), network=network)
        engines = [
            FusedDescent(network, loader, RowwiseAdagrad([network], 1e-3), Penalty(0.008, 0.5), threads=threads)
            for threads in (1, 2)
        ]
        epoch(engines[0], loader, 0)
        times = [[epoch(engine, loader, n) for engine in engines] for n in range(1, options.repeats + 1)]
        for engine in engines:
            engine.close()
        one, two = (options.rows / statistics.median(column) / 1e6 for column in zip(*times, strict=True))
        moved = 12 + 2 * 2 * (4 * dim + 32)  # columns of the rating; both vectors and side tables, read and written
        print(
            f"{dim:>4} {moved:>13,} {speed / moved / 1e6:>10.0f} {one:>13.1f} {two:>14.1f} {two / one:>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

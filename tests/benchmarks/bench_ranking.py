"""Time of ranking metrics, and of top-k lists of all users relative to their matrix product.

    python tests/benchmarks/bench_ranking.py [--dim 64] [--k 20] [--users N] [--repeats 5]      (or: make bench-ranking)

Needs Gowalla (CFLIGHTNING_DATA, default ../shared/data), its users, items and seen items; the vectors are random, as
the time does not depend on them. One thread unless OMP_NUM_THREADS is set. Measurements alternate, and ratios are those
of medians; on a busy machine, the ratio of CPU time is more reliable.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch

from cflightning.metrics.ranking import RankingMetrics, is_relevant, user_metrics
from cflightning.metrics.top_k import rank_all
from cflightning.utils.csr import Csr, item_sets

DATA = Path(os.environ.get("CFLIGHTNING_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
BLOCK = 64


def gowalla(name: str) -> Csr:
    """Read the pairs: users from 0, items from 1 (index 0 is the unknown item)."""
    frame = pd.read_parquet(DATA / "gowalla" / f"{name}.parquet")
    user, item = (torch.tensor(frame[column].to_numpy()) for column in ("user", "item"))
    return item_sets(user, item + 1, 29_858, 40_982)


def measured(repeats: int, **runs: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Return median wall-clock and CPU seconds of each function, alternating, after a warm-up round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {
        name: (statistics.median(clock for clock, _ in values[1:]), statistics.median(used for _, used in values[1:]))
        for name, values in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--users", type=int, default=29_858, help="the first of them only, for a quick look")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    everyone = torch.arange(options.users)
    seen, relevant = (gowalla(name).take(everyone) for name in ("train", "test"))
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, options.dim, generator=generator) for n in (options.users, seen.num_items))
    bias = torch.randn(len(items), generator=generator)
    print(f"{torch.get_num_threads()} threads; {len(users):,} users x {len(items):,} items, dim {options.dim}")

    wide, tall = torch.empty(BLOCK, len(items)), torch.empty(len(items), BLOCK)
    full = range(0, len(users) - BLOCK + 1, BLOCK)  # without the users of an incomplete last block

    def product_by_users() -> None:
        for at in full:
            torch.mm(users[at : at + BLOCK], items.T, out=wide)

    def product_by_items() -> None:
        for at in full:
            torch.mm(items, users[at : at + BLOCK].T, out=tall)

    def ranking() -> torch.Tensor:
        return torch.cat([ranked.item for ranked in rank_all(users, items, bias, seen, options.k)])

    def plain() -> None:
        for at in full:
            torch.mm(users[at : at + BLOCK], items.T, out=wide).topk(options.k)

    found = measured(
        options.repeats, product_by_users=product_by_users, product_by_items=product_by_items, ranking=ranking,
        product_and_topk=plain,
    )  # fmt: skip
    alone = min(found["product_by_users"], found["product_by_items"])
    print(f"seconds, and times the faster matrix product alone (blocks of {BLOCK} users); then of the processor")
    for name, (clock, used) in found.items():
        times = clock / alone[0], used / alone[1]
        print(
            f"  {name.replace('_', ' '):<18} {clock:>7.2f} {times[0]:>6.2f}   {used:>7.2f} {times[1]:>6.2f}", flush=True
        )
    top = ranking()
    start = time.perf_counter()
    figures = RankingMetrics((10, 20))
    figures.update(top, relevant)
    print(f"metrics of these lists: {time.perf_counter() - start:.3f} s")

    lists = torch.randint(1, len(items), (20_000, 50), generator=generator)
    owner = torch.arange(20_000).repeat_interleave(7)
    wanted = item_sets(owner, torch.randint(1, len(items), owner.shape, generator=generator), 20_000, len(items))
    found = measured(
        4 * options.repeats,
        hits=lambda: is_relevant(lists, wanted),
        figures=lambda: user_metrics(is_relevant(lists, wanted), wanted.counts, (10, 20, 50)),
    )
    print(f"20,000 users x 50: hits {found['hits'][0]:.3f} s, hits and 7 metrics at 3 ks {found['figures'][0]:.3f} s")


if __name__ == "__main__":
    main()

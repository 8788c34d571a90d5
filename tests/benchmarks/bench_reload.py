"""Latency of small requests while the HTTP server loads a bundle with a large catalogue.

    python tests/benchmarks/bench_reload.py [--items 200000] [--ids string] [--reloads 4]   (or: make bench-reload)

One client sends POST /recommend (k = 10) every two milliseconds, in a separate process, while bundles with titles and
categories replace each other by renaming. The maximum is the stall: Python runs nothing else while it parses or frees a
large object. For comparison, the same without reloads.
"""

import argparse
import datetime
import math
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from bench_http import SCRAPED, running
from bench_search import factors, write_bundle

BAR = 50.0
"""Bar for the maximum, milliseconds."""


def make(folder: Path, items: int, kind: str, seed: int) -> Path:
    """Write a bundle whose items have titles and 18 categories."""
    rng = np.random.default_rng(seed)
    ids = np.arange(1, items + 1) * 2 if kind == "int64" else np.array([f"B{n:09d}" for n in range(items)], object)
    titles = {one: f'The "{n % 977}" of item {n}, é ({1900 + n % 125})' for n, one in enumerate(ids.tolist())}
    categories = {f"category {n}": np.sort(rng.choice(items, items // 9, replace=False)) for n in range(18)}
    write_bundle(folder, factors(items, seed), ids, titles=titles, categories=categories)
    return folder


def waits(client: httpx.Client, until) -> list[float]:
    """Measure the milliseconds of each request until a function returns true."""
    spent = []
    while not until():
        began = time.perf_counter()
        client.post("/recommend", json={"user": 3, "k": 10}).raise_for_status()
        spent.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.002)
    return spent


class Reloaded:
    """Return whether this number of bundles was loaded at least a second ago, so that the last one is freed."""

    def __init__(self, client: httpx.Client, wanted: int) -> None:
        self.client, self.wanted, self.asked, self.end = client, wanted, 0, math.inf

    def __call__(self) -> bool:
        self.asked += 1
        if self.end == math.inf and self.asked % 50 == 0:
            counts = dict(SCRAPED.findall(self.client.get("/metrics").text))
            if float(counts.get("loaded", 0)) >= self.wanted:
                self.end = time.monotonic() + 1
        return time.monotonic() > self.end


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    bundles = [make(scratch / f"made-{n}", options.items, options.ids, n) for n in range(2)]
    live = scratch / "live"
    shutil.copytree(bundles[0], live)
    found: dict[str, list[float]] = {"idle": [], "reloads": []}
    with (
        running("-m", "cflightning_serve", "http", live, "--port", "0", "--poll", "0") as (process, url),
        httpx.Client(base_url=url, timeout=60) as client,
        httpx.Client(base_url=url, timeout=60) as other,
    ):
        end = time.monotonic() + 5
        found["idle"] = waits(client, lambda: time.monotonic() > end)
        for n in range(options.reloads):
            shutil.copytree(bundles[(n + 1) % 2], scratch / "next")
            os.replace(live, scratch / f"old-{n}")
            os.replace(scratch / "next", live)
            os.kill(process.pid, signal.SIGHUP)
            found["reloads"] += waits(client, Reloaded(other, n + 1))
    return found


def row(name: str, spent: list[float]) -> str:
    p50, p99, longest = np.percentile(spent, [50, 99, 100])
    return f"| {name} | {len(spent):,} | {p50:.1f} | {p99:.1f} | {longest:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--ids", choices=("int64", "string"), default="string")
    parser.add_argument("--reloads", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="replace the section in RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(options, Path(scratch))
    lines = [
        f"{datetime.date.today()}, {os.cpu_count()} cores. `make bench-reload`: a server loads {options.reloads} "
        f"bundles of {options.items:,} items ({options.ids} ids, titles, categories) in sequence, while a "
        f"client requests 10 items every 2 ms. Milliseconds; bar: {BAR:.0f} for the maximum.",
        "",
        "| | requests | p50 | p99 | longest |",
        "| --- | ---: | ---: | ---: | ---: |",
        row("without reloads", found["idle"]),
        row("with reloads", found["reloads"]),
    ]
    print("\n".join(lines))
    if options.write:
        from results import write_section

        write_section("reload", "\n".join(lines))


if __name__ == "__main__":
    main()

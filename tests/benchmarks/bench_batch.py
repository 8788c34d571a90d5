"""Top-100 lists of 6,040 users among 3,706 items, 64 factors, beside a matrix product and top-k of other libraries.

    python tests/benchmarks/bench_batch.py [BUNDLE] [--threads 1] [--write]

Without a bundle, a synthetic one is written. All methods run in turn, round after round, so that other load slows them
equally; results are medians. `implicit` is installed in an environment of its own (--without-implicit omits it). A
bundle with seen items is also measured without them. `--write` writes the table to RESULTS.md.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np

ENVIRONMENT = Path(__file__).parents[2] / ".venv-peers" / "implicit-topk"
BLOCKS = (64, 128, 256, 512)
"""Users per block for the product and torch.topk; the fastest is compared."""
PEER = """
import sys, time
import numpy as np
from implicit.cpu.topk import topk
tables = np.load(sys.argv[1])
users, items, k, threads = tables["users"], tables["items"], int(sys.argv[2]), int(sys.argv[3])
topk(items, users[:64], k, num_threads=threads)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for at in range(0, len(users), 1024):
        topk(items, users[at : at + 1024], k, num_threads=threads)
    print(time.perf_counter() - start, flush=True)
"""


def main() -> None:
    """Time all methods and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--without-implicit", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name) != str(options.threads):  # read at the import of the libraries
            os.environ[name] = str(options.threads)
            os.execv(sys.executable, [sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or synthetic(Path(scratch) / "bundle")
        report(measure(bundle, options, Path(scratch)), options)


def synthetic(folder: Path) -> Path:
    """Write a bundle of the size of MovieLens 1M with the graphs of `lists`."""
    helper = Path(__file__).parents[1] / "serve" / "bundles.py"
    spec = importlib.util.spec_from_file_location("serve_tests_bundles", helper)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    tables = module.make_tables(6040, 3706, 64)
    return module.write_bundle(folder, module.replace(tables, categories={}))


def measure(bundle: Path, options: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """Return the median seconds of every method."""
    import torch

    from cflightning_serve import Scorer
    from cflightning_serve.batch.run import write_recommendations

    torch.set_num_threads(options.threads)
    scorer = Scorer.load(bundle)
    users, k = scorer.users(), options.k
    vectors = scorer.factors(scorer.catalogue.ids)
    # A bundle returns no user factors; their values do not affect the time of a product.
    factors = np.random.default_rng(0).normal(0, vectors.std(), (len(users), vectors.shape[1])).astype(np.float32)
    left, right = torch.from_numpy(factors), torch.from_numpy(vectors.copy())

    def product(block: int, pick: bool) -> None:
        for at in range(0, len(left), block):
            scores = left[at : at + block] @ right.T
            if pick:
                torch.topk(scores, k, sorted=True)

    ways = {f"product, blocks of {block}": lambda block=block: product(block, False) for block in BLOCKS}
    ways |= {f"product and torch.topk, blocks of {block}": lambda block=block: product(block, True) for block in BLOCKS}
    if not options.without_implicit:
        np.savez(scratch / "tables.npz", users=factors, items=vectors)
        ways["implicit's topk, including the product"] = implicit(scratch / "tables.npz", options)
    for exclude_seen in (False, True) if "history" in scorer.manifest.graphs else (False,):
        seen = ", the seen left out" if exclude_seen else ""
        asked = {"k": k, "exclude_seen": exclude_seen, "threads": options.threads}
        if options.threads == 1:
            ways[f"Scorer.recommend_many{seen}"] = lambda e=exclude_seen: scorer.recommend_many(
                users, k, exclude_seen=e
            )
        for suffix in (".parquet", ".csv"):
            out = scratch / f"lists{suffix}"
            ways[f"batch to {suffix}{seen}"] = lambda out=out, asked=asked: write_recommendations(scorer, out, **asked)
    ways["Scorer.recommend"] = lambda: scorer.recommend(users, k, exclude_seen=False)
    seconds = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            spent = way() or time.perf_counter() - start
            if number:  # the first round warms up
                seconds[name].append(spent if isinstance(spent, float) else time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def implicit(tables: Path, options: argparse.Namespace):
    """Start implicit in a separate process, as it needs another numpy; return a function that measures it."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "implicit==0.7.3"], check=True)
    peer = subprocess.Popen(
        [python, "-c", PEER, str(tables), str(options.k), str(options.threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    peer.stdout.readline()

    def ask() -> float:
        peer.stdin.write("\n")
        peer.stdin.flush()
        return float(peer.stdout.readline())

    return ask


def report(seconds: dict[str, float], options: argparse.Namespace) -> None:
    """Print a table, the ratio of the bar, and all results as JSON."""
    best = min((name for name in seconds if "topk" in name), key=seconds.get)
    lines = ["| method | ms | relative to the fastest product and top-k |", "| --- | --- | --- |"]
    lines += [f"| {name} | {s * 1e3:.0f} | {s / seconds[best]:.2f} |" for name, s in seconds.items()]
    print("\n".join(lines))
    print(json.dumps(seconds))
    if options.write:
        from results import write_section

        when = datetime.datetime.now(datetime.UTC).date()
        command = "`make bench-batch ARGS=--write`"
        about = (
            f"{when}, {platform.machine()}, {options.threads} thread(s), medians of {options.rounds} rounds, {command}."
        )
        head = f"## The best {options.k} items of all users\n\n6,040 users, 3,706 items, 64 factors. {about}\n"
        write_section("batch", head + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()

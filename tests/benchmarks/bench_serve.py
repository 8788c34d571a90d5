"""Latency of a bundle on one thread.

    python tests/benchmarks/bench_serve.py [BUNDLE]

Without a bundle, a synthetic one of the size of MovieLens 1M is written (6,040 users, 3,706 items, 64 factors), which
needs onnx. With a bundle, only ``serve/`` must be installed, as in production.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cflightning_serve import Scorer

FRESH = """
import sys, time
start = time.perf_counter()
from cflightning_serve import Scorer
imported = time.perf_counter()
scorer = Scorer.load(sys.argv[1])
loaded = time.perf_counter()
one = (0, 0) if scorer.manifest.user_ids == "int64" else ("", "")
scorer.score(*one)
scored = time.perf_counter()
print(imported - start, loaded - imported, scored - loaded)
"""


def fresh(bundle: Path, times: int) -> np.ndarray:
    """Measure the seconds of import, load, first score and the whole process; medians over new processes."""
    rows = []
    for _ in range(times + 1):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", FRESH, str(bundle)], capture_output=True, text=True, check=True)
        rows.append([*map(float, done.stdout.split()), time.perf_counter() - start])
    return np.median(rows[1:], axis=0)  # the first one fills the page cache


def warm(ask, questions) -> tuple[float, float]:
    """Measure the microseconds of one call, p50 and p99."""
    for question in questions[: len(questions) // 10 + 1]:
        ask(question)
    spent = []
    for question in questions:
        start = time.perf_counter()
        ask(question)
        spent.append(time.perf_counter() - start)
    return tuple(float(value) * 1e6 for value in np.percentile(spent, [50, 99]))


def main() -> None:
    """Time a bundle and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or synthetic(Path(scratch) / "bundle")
        report(bundle, options.calls)


def synthetic(folder: Path) -> Path:
    """Write a bundle of the size of MovieLens 1M."""
    helper = Path(__file__).parents[1] / "serve" / "bundles.py"
    spec = importlib.util.spec_from_file_location("serve_tests_bundles", helper)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.write_bundle(folder, module.make_tables(6040, 3706, 64))


def report(bundle: Path, calls: int) -> None:
    """Print one line per result, then all of them as JSON."""
    rng = np.random.default_rng(0)
    figures = {}

    def say(name: str, value: float, unit: str) -> None:
        figures[name] = value
        print(f"{name:42s}{value:12.1f} {unit}")

    imported, loaded, scored, process = fresh(bundle, 7) * 1e3
    say("fresh: import", imported, "ms")
    say("fresh: load, digests compared", loaded, "ms")
    say("fresh: first score", scored, "ms")
    say("fresh: import + load + first score", imported + loaded + scored, "ms")
    say("fresh: whole process", process, "ms")

    scorer = Scorer.load(bundle)
    about = scorer.manifest
    print(f"{about.num_users - 1:,} users, {about.num_items - 1:,} items, {about.dim} factors")
    items = scorer.recommend(0 if about.user_ids == "int64" else "", k=about.num_items).items
    # The bundle may have no list of users: try likely ids, else unknown ones, which take the same time.
    guesses = np.arange(1, 10 * about.num_users)
    guesses = guesses if about.user_ids == "int64" else guesses.astype(str)
    known = guesses[scorer.knows_user(guesses)]
    users = rng.choice(known if len(known) else guesses, calls).tolist()
    some = rng.choice(items, calls).tolist()

    for name, ask, questions in (
        ("recommend(user, k=10)", lambda user: scorer.recommend(user, 10), users),
        ("recommend(user, k=10, exclude=100 items)", lambda user: scorer.recommend(user, 10, some[:100]), users),
        ("recommend(64 users, k=10)", lambda n: scorer.recommend(users[n : n + 64], 10), range(50)),
        ("score(user, item)", lambda pair: scorer.score(*pair), list(zip(users, some, strict=True))),
        ("similar_items(item, k=10)", lambda item: scorer.similar_items(item, 10), some),
    ):
        p50, p99 = warm(ask, questions)
        say(f"{name} p50", p50, "us")
        say(f"{name} p99", p99, "us")
    pairs = np.array(users)[rng.integers(0, calls, 10_000)], np.array(some)[rng.integers(0, calls, 10_000)]
    say("score(10,000 pairs) p50", warm(lambda _: scorer.score(*pairs), range(50))[0], "us")

    session = scorer.graphs.open("recommend")
    feeds = {
        "user": np.array(users[:1]),
        "k": np.array([10]),
        "exclude_user": np.empty(0, np.int64),
        "exclude_item": np.empty(0, np.int64 if about.item_ids == "int64" else object),
    }
    bare = warm(lambda _: session.run(("item", "score"), feeds), range(calls))[0]
    wrapped = warm(lambda _: scorer.recommend(users[0], 10), range(calls))[0]
    say("bare session.run of recommend p50", bare, "us")
    say("what this package adds to it", wrapped - bare, "us")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

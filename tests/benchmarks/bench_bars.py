"""All bars in one table: accuracy, end-to-end time, latency.

    python tests/benchmarks/bench_bars.py [--only NAME ...]      (or: make bars)

Needs the real data sets (CFLIGHTNING_DATA, default ../shared/data). Everything runs through the command line, as a user
would type it, in sequence. Accuracy is the mean of three seeds of initialisation, order and validation rows.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cflightning.evaluation.run_metrics import read_metrics

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("CFLIGHTNING_DATA", REPOSITORY.parent / "shared" / "data"))


def cflightning(*args: object, cwd: Path) -> float:
    """Run the command line; return the wall-clock seconds of the process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cflightning", *map(str, args)], cwd=cwd, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return time.perf_counter() - start


def fit(scratch: Path, *args: object) -> tuple[dict[str, float], float]:
    """Fit in a new run folder; return its metrics and the wall-clock seconds."""
    with tempfile.TemporaryDirectory(dir=scratch) as root:
        seconds = cflightning("fit", *args, "--trainer.default_root_dir", root, cwd=scratch)
        [metrics] = Path(root).glob("version_0/metrics.json")
        return read_metrics(metrics), seconds


def accuracy(scratch: Path, name: str, bar: float | None, *args: object) -> float:
    """Mean test RMSE of three seeds."""
    runs = [fit(scratch, *args, "--model.seed", seed, *(() if "1m" in name else ("--data.split.seed", seed)))[0]
            for seed in (0, 1, 2)]  # fmt: skip
    for key, limit in (("test/rmse", bar), ("test/mae", None)):
        values = [run[key] for run in runs]
        spread = f"{statistics.mean(values):.4f} (sd {statistics.stdev(values):.4f})"
        show(f"{name} {key}", spread, f"<= {limit}" if limit else "")
    show(f"{name} training seconds, ratings/s", f"{statistics.median(run['seconds/train'] for run in runs):.2f} s, "
         f"{statistics.median(run['train/ratings_per_second'] for run in runs):,.0f}/s")  # fmt: skip
    return statistics.mean(run["test/rmse"] for run in runs)


def show(what: str, measured: str, bar: str = "") -> None:
    print(f"{what:<62} {measured:<28} {bar}", flush=True)


def small(scratch: Path) -> None:
    runs = [fit(scratch) for _ in range(3)]
    show("fit on movielens-small, end to end", f"{statistics.median(s for _, s in runs):.1f} s", "<= 30 s")
    show("  of which training", f"{statistics.median(m['seconds/train'] for m, _ in runs):.1f} s", "<= 15 s")
    show("  test RMSE", f"{runs[0][0]['test/rmse']:.4f}")


def help_(scratch: Path) -> None:
    seconds = statistics.median(cflightning("--help", cwd=scratch) for _ in range(5))
    show("python -m cflightning --help, median of 5", f"{seconds:.2f} s", "<= 0.7 s")


def start(scratch: Path) -> None:
    """End-to-end time on a small table relative to the import of LightningCLI; alternating."""
    bare = [sys.executable, "-c", "from lightning.pytorch.cli import LightningCLI"]
    pairs = []
    for _ in range(8):
        begin = time.perf_counter()
        subprocess.run(bare, check=True, cwd=scratch)
        imported = time.perf_counter() - begin
        pairs.append((imported, cflightning("fit", *config("ml-100k"), cwd=scratch)))
    bare_seconds, seconds = (statistics.median(column) for column in zip(*pairs[1:], strict=True))  # caches are warm
    ratio = statistics.median(fitted / imported for imported, fitted in pairs[1:])
    show("import of LightningCLI alone; fit of ml-100k", f"{bare_seconds:.1f} s; {seconds:.1f} s")
    show("fit of ml-100k over that import, end to end", f"{ratio:.2f}", "<= 1.5")


READ = """
import sys, time
from cflightning import RatingsDataModule
import pyarrow.csv
for _ in range(4):
    data = RatingsDataModule(sys.argv[1])
    start = time.perf_counter()
    table = data.table
    read = time.perf_counter()
    _ = data.split
    cut = time.perf_counter()
    users, items = data.vocabulary.users.indices_of(table.user), data.vocabulary.items.indices_of(table.item)
    print(read - start + time.perf_counter() - cut)
"""


def read(scratch: Path) -> None:
    """Time of reading and encoding ratings.dat without the split: first time, and from the cache."""
    first, again = [], []
    for number in range(5):
        environment = os.environ | {"CFLIGHTNING_CACHE": str(scratch / str(number))}
        done = subprocess.run([sys.executable, "-c", READ, str(DATA / "ml-1m")], env=environment, check=True,
                              capture_output=True, text=True)  # fmt: skip
        seconds = [float(line) for line in done.stdout.split()]
        first.append(seconds[0])
        again += seconds[1:]
    show("ml-1m's ratings.dat read and encoded, first time", f"{statistics.median(first):.2f} s", "< 1 s")
    show("  from the cache", f"{statistics.median(again):.3f} s", "< 0.1 s")


def config(name: str) -> tuple[object, ...]:
    return "--config", REPOSITORY / "configs" / f"{name}.yaml", "--data.path", DATA / name


def ml_100k(scratch: Path) -> None:
    accuracy(scratch, "ml-100k", 0.920, *config("ml-100k"))


def ml_1m(scratch: Path) -> None:
    accuracy(scratch, "ml-1m", 0.855, *config("ml-1m"))


def engines(scratch: Path) -> None:
    """Accuracy of the fused engine relative to autograd, with the defaults and all training rows."""
    tables = {name: config(name) for name in ("ml-100k", "ml-1m")}
    ratings = "--model.objective", "mse"
    tables |= {name: (*ratings, "--data.path", DATA / name) for name in ("ml-latest-small", "movietweetings-100k")}
    for more in ((), ("--data.split.val_fraction", 0)):
        for name, args in tables.items():
            title = " ".join(map(str, (name, *more)))
            means = [accuracy(scratch, f"{title} {engine}", None, *args, *more, "--model.engine", engine)
                     for engine in ("autograd", "fused")]  # fmt: skip
            show(f"{title}: test RMSE of fused over autograd", f"{means[1] - means[0]:+.4f}", "<= +0.0005")


def serve(scratch: Path) -> None:
    """Latency of the ml-1m bundle; the scorer runs in an environment with only serve/ installed."""
    cflightning("fit", "--config", REPOSITORY / "configs" / "ml-1m.yaml", "--data.path", DATA / "ml-1m",
                "--trainer.default_root_dir", scratch / "runs", cwd=scratch)  # fmt: skip
    cflightning("export", scratch / "runs" / "version_0", scratch / "bundle", cwd=scratch)
    subprocess.run([sys.executable, "-m", "venv", scratch / "venv"], check=True)
    python = scratch / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", REPOSITORY / "constraints.txt", REPOSITORY / "serve"], check=True
    )
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True).returncode != 0
    show("production environment", "no torch importable" if absent else "TORCH IS THERE", "no torch")
    subprocess.run([python, REPOSITORY / "tests" / "benchmarks" / "bench_serve.py", scratch / "bundle"], check=True)


PARTS = {
    "help": help_,
    "small": small,
    "ml-100k": ml_100k,
    "ml-1m": ml_1m,
    "engines": engines,
    "start": start,
    "read": read,
    "serve": serve,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    for name in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as scratch:
            PARTS[name](Path(scratch))


if __name__ == "__main__":
    main()

"""Kills exports and batches at random moments: files stay intact, and no temporary file remains.

    python tests/benchmarks/kill_serving.py [RUN] [--times 100]

Without a run, a small one is trained. A process forks the work after the imports, so that most kills hit the work. The
checks below define the requirements; the first failure ends the command with 1.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cflightning_export.bundle import export_bundle
from cflightning_serve import Scorer
from cflightning_serve.batch.run import write_recommendations

PART = 16
"""Users per part: many parts even for a small bundle."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="run folder")
    parser.add_argument("--times", type=int, default=100, help="kills of each (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = options.run or train(folder)
        kill_exports(run, folder / "export", options.times, moments)
        kill_batches(run, folder / "batch", options.times, moments)
    return 0


def train(folder: Path) -> Path:
    """Train a small run on synthetic ratings."""
    command = [sys.executable, "-m", "cflightning", "fit", "--data.source", "synthetic", "--trainer.max_epochs", "1"]
    subprocess.run([*command, "--trainer.accelerator", "cpu"], cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "version_0"


def kill_exports(run: Path, folder: Path, times: int, moments: random.Random) -> None:
    """Check that the target is the complete old or new bundle, and that each export removes leftovers."""
    folder.mkdir()
    target = folder / "bundle"

    def work() -> None:
        export_bundle(run, target, overwrite=True)

    export_bundle(run, target)
    whole = seconds(work)
    finished = changed = left = 0
    for _ in range(times):
        before = Scorer.load(target).manifest.sha256
        finished += killed(work, moments.uniform(0, 1.1 * whole))
        scorer = Scorer.load(target, eager=True)  # verifies every digest and opens every graph
        changed += scorer.manifest.sha256 != before
        leftovers = [path.name for path in folder.iterdir() if path != target]
        left += len(leftovers)
        check(len(leftovers) <= 1, f"temporary files of more than the last export: {leftovers}")
    work()
    check([path.name for path in folder.iterdir()] == ["bundle"], "temporary files remain after the last export")
    print(f"export: {times} kills within {whole:.1f} s, {finished} came too late, the bundle was another one after "
          f"{changed}, {left} left temporary files: complete, removed by the next", flush=True)  # fmt: skip


def kill_batches(run: Path, folder: Path, times: int, moments: random.Random) -> None:
    """Check that the file is complete, and that the same call continues to identical bytes without leftovers."""
    folder.mkdir()
    scorer = Scorer.load(export_bundle(run, folder / "bundle"), eager=True)
    for suffix in (".csv", ".parquet"):
        out = folder / f"lists{suffix}"

        def work(out: Path = out) -> None:
            write_recommendations(scorer, out, 10, part_size=PART)

        work()
        expected = out.read_bytes()
        out.unlink()
        whole = seconds(work)
        finished = resumed = 0
        for _ in range(times // 2):
            resumed += (folder / f"{out.name}.parts").exists()
            finished += killed(work, moments.uniform(0, 1.1 * whole))
            check(not out.exists() or out.read_bytes() == expected, f"{out.name} is neither the old nor the new file")
        work()
        check(out.read_bytes() == expected, f"{out.name}: different bytes after continuing")
        check({path.name for path in folder.iterdir() if "lists" in path.name} <= {"lists.csv", "lists.parquet"},
              "temporary files remain after the last batch")  # fmt: skip
        print(f"batch {suffix}: {times // 2} kills within {whole:.2f} s, {finished} came too late, {resumed} "
              "continued from parts: identical bytes", flush=True)  # fmt: skip


def seconds(work: Callable[[], None]) -> float:
    """Return the seconds of the work in a process that is not killed."""
    begin = time.perf_counter()
    check(killed(work, 600), "the work did not end")
    return time.perf_counter() - begin


def killed(work: Callable[[], None], after: float) -> bool:
    """Kill a process during the work; return whether it had finished."""
    child = os.fork()
    if not child:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error}\n".encode())
            os._exit(1)
        os._exit(0)
    until = time.perf_counter() + after
    while time.perf_counter() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            check(status == 0, "the work failed before it was killed")
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"kill_serving: {otherwise}")


if __name__ == "__main__":
    sys.exit(main())

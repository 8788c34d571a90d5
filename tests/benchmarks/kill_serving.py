"""Exports and batches that are killed at random moments: nothing is corrupt, nothing lost, no scrap is left.

    python tests/benchmarks/kill_serving.py [RUN] [--times 100]

Without a run a small one is trained. A process that has imported everything forks the work, so that most kills hit it
and not the imports. What must hold stands in the checks below; the first one that does not ends the command with 1.
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
"""Users of a part: many parts even of a small bundle."""


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
    """A small run on made-up ratings."""
    command = [sys.executable, "-m", "cflightning", "fit", "--data.source", "synthetic", "--trainer.max_epochs", "1"]
    subprocess.run([*command, "--trainer.accelerator", "cpu"], cwd=folder, check=True, capture_output=True)
    return folder / "runs" / "version_0"


def kill_exports(run: Path, folder: Path, times: int, moments: random.Random) -> None:
    """The target is the old bundle or the new one, whole; each run removes what earlier ones left."""
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
        scorer = Scorer.load(target, eager=True)  # every digest is compared, every graph opened
        changed += scorer.manifest.sha256 != before
        scraps = [path.name for path in folder.iterdir() if path != target]
        left += len(scraps)
        check(len(scraps) <= 1, f"scraps of more than the last export: {scraps}")
    work()
    check([path.name for path in folder.iterdir()] == ["bundle"], "a scrap is older than the last export")
    print(f"export: {times} kills within {whole:.1f} s, {finished} came too late, the bundle was another one after "
          f"{changed}, {left} left a scrap: always whole, swept by the next", flush=True)  # fmt: skip


def kill_batches(run: Path, folder: Path, times: int, moments: random.Random) -> None:
    """The file is the old one or the new one, whole; the same call goes on to the same bytes and leaves nothing."""
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
        check(out.read_bytes() == expected, f"{out.name}: other bytes after it went on")
        check({path.name for path in folder.iterdir() if "lists" in path.name} <= {"lists.csv", "lists.parquet"},
              "a scrap is older than the last batch")  # fmt: skip
        print(f"batch {suffix}: {times // 2} kills within {whole:.2f} s, {finished} came too late, {resumed} went on "
              "with parts: the same bytes", flush=True)  # fmt: skip


def seconds(work: Callable[[], None]) -> float:
    """How long the work takes in a process of its own that is not killed."""
    begin = time.perf_counter()
    check(killed(work, 600), "the work did not end")
    return time.perf_counter() - begin


def killed(work: Callable[[], None], after: float) -> bool:
    """Kill a process that does the work; True if it was done before."""
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

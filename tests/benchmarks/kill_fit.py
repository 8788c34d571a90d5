"""Fits, searches and cross-validations that are killed at random moments: nothing is corrupt, all go on.

    python tests/benchmarks/kill_fit.py [--times 100]

A process that has imported everything forks the work, so that most kills hit it and not the imports. What must hold
stands in the checks below; the first one that does not ends the command with 1.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork

from kill_serving import check, killed, seconds

from cflightning.__main__ import main as front_door
from cflightning.checkpoint.format import read

SMALL = ["--data.source", "synthetic", "--model.objective", "mse", "--model.dim", "8", "--trainer.accelerator", "cpu",
         "--model.engine", "autograd", "--trainer.max_epochs", "4"]  # fmt: skip
SCRAPS = ("*.scrap", ".trial-*")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="kills of each (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        for command, more in (("fit", []), ("kfold", ["--folds", "2"]), ("tune", ["--trials", "3"])):
            folder = Path(scratch) / command
            folder.mkdir()
            kill(command, [*more, *SMALL, "--trainer.default_root_dir", str(folder)], folder, options.times, moments)
    return 0


def kill(command: str, args: list[str], folder: Path, times: int, moments: random.Random) -> None:
    """Every file is whole after a kill; the next run goes on and sweeps what was left."""

    def work() -> None:
        last = [*folder.glob("*/checkpoints/last.ckpt")] if command == "fit" else []
        unfinished = [path for path in last if not (path.parent.parent / "metrics.json").is_file()]
        go_on = ["--ckpt_path", str(unfinished[0])] if unfinished else []
        status = front_door([command, *args, "--model.seed", str(finished), *go_on])
        if status:
            raise RuntimeError(f"{command} {' '.join(go_on)} ended with {status}")

    finished = left = 0
    whole = seconds(work)
    finished = 1  # of another seed, or a finished study would be kept
    for _ in range(times):
        finished += killed(work, moments.uniform(0, 1.1 * whole))
        for path in folder.rglob("*.ckpt"):
            read(path)
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())
        left += len(scraps(folder))
    check(killed(work, 60 * whole + 60), "the next run did not end")
    check(not scraps(folder), f"a scrap is older than the next run: {scraps(folder)}")
    print(f"{command}: {times} kills within {whole:.1f} s, {finished - 1} came too late, {left} scraps were seen: "
          "all files whole, gone on with, swept by the next", flush=True)  # fmt: skip


def scraps(folder: Path) -> list[Path]:
    """What only killed processes leave."""
    return [path for pattern in SCRAPS for path in folder.rglob(pattern)]


if __name__ == "__main__":
    sys.exit(main())

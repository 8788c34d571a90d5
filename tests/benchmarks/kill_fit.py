"""Kills fits, searches and cross-validations at random moments: files stay intact, and all can be resumed.

    python tests/benchmarks/kill_fit.py [--times 100]

A process forks the work after the imports, so that most kills hit the work. The checks below define the requirements;
the first failure ends the command with 1.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads are lost in a fork

from kill_serving import check, killed, seconds

from cflightning.__main__ import main as front_door
from cflightning.checkpoint.format import read_checkpoint

SMALL = ["--data.source", "synthetic", "--model.objective", "mse", "--model.dim", "8", "--trainer.accelerator", "cpu",
         "--model.engine", "autograd", "--trainer.max_epochs", "4"]  # fmt: skip
LEFTOVERS = ("*.scrap", ".trial-*")


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
    """Check that every file is intact after a kill, and that the next run resumes and removes leftovers."""

    def work() -> None:
        last = [*folder.glob("*/checkpoints/last.ckpt")] if command == "fit" else []
        unfinished = [path for path in last if not (path.parent.parent / "metrics.json").is_file()]
        go_on = ["--ckpt_path", str(unfinished[0])] if unfinished else []
        status = front_door([command, *args, "--model.seed", str(finished), *go_on])
        if status:
            raise RuntimeError(f"{command} {' '.join(go_on)} ended with {status}")

    finished = left = 0
    whole = seconds(work)
    finished = 1  # another seed: a finished study would be reused
    for _ in range(times):
        finished += killed(work, moments.uniform(0, 1.1 * whole))
        for path in folder.rglob("*.ckpt"):
            read_checkpoint(path)
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())
        left += len(leftovers(folder))
    check(killed(work, 60 * whole + 60), "the next run did not end")
    check(not leftovers(folder), f"temporary files remain after the next run: {leftovers(folder)}")
    print(f"{command}: {times} kills within {whole:.1f} s, {finished - 1} came too late, {left} temporary "
          "files remained: all files intact, resumed, leftovers removed", flush=True)  # fmt: skip


def leftovers(folder: Path) -> list[Path]:
    """Return the files that only killed processes leave."""
    return [path for pattern in LEFTOVERS for path in folder.rglob(pattern)]


if __name__ == "__main__":
    sys.exit(main())

"""Run folders: their choice and locks, their loggers, and the files that killed commands left in them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.errors import ConfigError
from cflightning.utils.files import make_folder, make_numbered_folder, sweep
from cflightning.utils.locks import LOCK, lock_folder

RUNS = ("version_*", "kfold_*", "kfold_*/*", "tune_*", "test")
"""Folders below the root of runs that hold written files, possibly also in `checkpoints`."""
TRIAL = ".trial-"
"""Prefix of the folder of a running trial of `tune`."""


def relative(path: Path | str) -> str:
    """Return a path relative to the current folder, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def single_task(trainer: Mapping[str, object]) -> bool:
    """Return whether a Trainer has one device in a SLURM job of several tasks, each of which trains separately.

    Lightning would take the tasks for the processes of one fit, and refuse their number.

    Args:
        trainer: Options of the Trainer.
    """
    one_device = trainer["devices"] in (1, "1", [0]) and trainer["num_nodes"] == 1 and trainer["strategy"] == "auto"
    return one_device and os.environ.get("SLURM_NTASKS", "1") != "1"


def first_process() -> bool:
    """Return whether this process writes and prints; valid as soon as there is a Trainer."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def claim_run(root: Path, resumed: Path | None, locks: ExitStack) -> Path:
    """Choose and lock a run folder, and delete what killed runs left below `root`.

    Args:
        root: Folder of the runs, in which a new `version_N` is made.
        resumed: An existing run folder to continue in.
        locks: Holds the lock.

    Returns:
        The folder; an arbitrary one in processes other than the first, which write nothing there.

    Raises:
        ConfigError: Another process works on that run, or links in it lead out of it.
    """
    if not first_process():
        return resumed or root / "version_0"
    if resumed is not None:
        _refuse_links(resumed)
    sweep_runs(root if resumed is None else resumed.parent)
    run = make_folder(resumed) if resumed else make_numbered_folder(root, "version")
    locks.enter_context(lock_folder(run))
    return run


def _refuse_links(run: Path) -> None:
    """Refuse a run, possibly from an untrusted source, whose links would redirect written files.

    Raises:
        ConfigError: Names the first link that leads out of the run.
    """
    for folder in (run, run / "checkpoints"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_symlink() and not path.resolve().is_relative_to(run.resolve()):
                raise ConfigError(
                    f"{run}: must hold its own files to be continued, but {path.relative_to(run)} is a link that "
                    "leads out of it; replace the link by its target"
                )


def loggers(run: Path) -> list[Logger]:
    """Return a CSV logger and, if TensorBoard is installed, one for it, both in one folder.

    Args:
        run: The run folder; its earlier log is kept as `metrics.1.csv`, ….
    """
    path = run / "metrics.csv"
    if first_process() and path.is_file():  # CSVLogger would delete it
        number = next(n for n in itertools.count(1) if not (run / f"metrics.{n}.csv").exists())
        path.rename(run / f"metrics.{number}.csv")
    csv: list[Logger] = [CSVLogger(str(run.parent), name="", version=run.name)]
    try:
        import tensorboard  # noqa: F401
        from lightning.pytorch.loggers import TensorBoardLogger
    except ImportError:
        return csv
    return [*csv, TensorBoardLogger(str(run.parent), name="", version=run.name)]


def drop_empty_run(run: Path) -> None:
    """Delete a run folder that holds nothing but its lock."""
    with contextlib.suppress(OSError):
        if {path.name for path in run.iterdir()} <= {LOCK}:
            (run / LOCK).unlink(missing_ok=True)
            run.rmdir()


def sweep_runs(root: Path) -> None:
    """Delete what killed commands left below a folder of runs, but not the files of running commands."""
    runs = [root, *(folder for pattern in RUNS for folder in root.glob(pattern) if folder.is_dir())]
    sweep(folder for run in runs for folder in (run, run / "checkpoints"))
    for search in {trial.parent for trial in root.glob(f"tune_*/{TRIAL}*")}:
        try:
            with lock_folder(search):
                sweep_trials(search)
        except ConfigError:  # a running search
            continue


def sweep_trials(search: Path) -> None:
    """Delete the trial folders of a search, whose lock must be held."""
    for folder in search.glob(f"{TRIAL}*"):
        shutil.rmtree(folder, ignore_errors=True)

"""Run folders: which one a fit gets, what is logged there, and what killed runs have left in them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.errors import ConfigError
from cflightning.utils.files import claim, make_folder, sweep
from cflightning.utils.locks import LOCK, alone_in

RUNS = ("version_*", "kfold_*", "kfold_*/*", "tune_*", "test")
"""Folders below the root of runs in which files are written, each perhaps with `checkpoints`."""
TRIAL = ".trial-"
"""Beginning of the name of the folder that a trial of `tune` has while it runs."""


def single_task(trainer: Mapping[str, Any]) -> bool:
    """Whether a Trainer is one of several tasks of SLURM that train apart: one device each, asked for as such.

    Lightning would take the tasks for the processes of one fit, and refuse their number.

    Args:
        trainer: its settings.
    """
    one = trainer["devices"] in (1, "1", [0]) and trainer["num_nodes"] == 1 and trainer["strategy"] == "auto"
    return one and os.environ.get("SLURM_NTASKS", "1") != "1"


def first_process() -> bool:
    """Whether this is the process of a run that writes and speaks; known when its Trainer is."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def claim_run(root: Path, resumed: Path | None, held: ExitStack) -> Path:
    """Choose and lock the folder of a run, and sweep what killed runs have left below `root`.

    Args:
        root: where runs lie; a new folder `version_N` is made in it.
        resumed: a run's folder, to go on in it.
        held: keeps the lock.

    Returns:
        The folder; in other processes than the first one some folder, for they write nothing there.

    Raises:
        ConfigError: another process works on that run, or links in it lead elsewhere.
    """
    if not first_process():
        return resumed or root / "version_0"
    if resumed is not None:
        _refuse_links(resumed)
    sweep_runs(root if resumed is None else resumed.parent)
    run = make_folder(resumed) if resumed else claim(root, "version")
    held.enter_context(alone_in(run))
    return run


def _refuse_links(run: Path) -> None:
    """Refuse a run, perhaps a stranger's, in which files of somewhere else would be written through links.

    Raises:
        ConfigError: names the first of them.
    """
    for folder in (run, run / "checkpoints"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_symlink() and not path.resolve().is_relative_to(run.resolve()):
                raise ConfigError(
                    f"{run}: must hold files of its own to go on in it, but {path.relative_to(run)} is a link that "
                    "leads out of it; put what it leads to in its place"
                )


def loggers(run: Path) -> list[Logger]:
    """CSV always, TensorBoard where it is installed; both in one folder.

    Args:
        run: the folder; what it has logged so far is kept as `metrics.1.csv`, ….
    """
    logged = run / "metrics.csv"
    if first_process() and logged.is_file():  # CSVLogger deletes what it finds
        number = next(n for n in itertools.count(1) if not (run / f"metrics.{n}.csv").exists())
        logged.rename(run / f"metrics.{number}.csv")
    found: list[Logger] = [CSVLogger(str(run.parent), name="", version=run.name)]
    try:
        import tensorboard  # noqa: F401
        from lightning.pytorch.loggers import TensorBoardLogger
    except ImportError:
        return found
    return [*found, TensorBoardLogger(str(run.parent), name="", version=run.name)]


def drop_empty_run(run: Path) -> None:
    """Delete the folder of a run that has written nothing, together with its lock."""
    with contextlib.suppress(OSError):
        if {path.name for path in run.iterdir()} <= {LOCK}:
            (run / LOCK).unlink(missing_ok=True)
            run.rmdir()


def sweep_runs(root: Path) -> None:
    """Delete what killed commands have left below a root of runs, but for what running ones are at."""
    runs = [root, *(folder for pattern in RUNS for folder in root.glob(pattern) if folder.is_dir())]
    sweep(folder for run in runs for folder in (run, run / "checkpoints"))
    for search in {left.parent for left in root.glob(f"tune_*/{TRIAL}*")}:
        try:
            with alone_in(search):
                sweep_trials(search)
        except ConfigError:  # it is being worked on
            continue


def sweep_trials(search: Path) -> None:
    """Delete the folders of trials of a search; its lock must be held."""
    for left in search.glob(f"{TRIAL}*"):
        shutil.rmtree(left, ignore_errors=True)

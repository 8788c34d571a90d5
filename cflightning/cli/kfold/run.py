"""The command line's fit, once for every fold and seed."""

from __future__ import annotations

import itertools
import os
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer import Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning import __version__
from cflightning.cli.fit import CFLightningCLI
from cflightning.cli.fit import main as fit
from cflightning.cli.kfold.study import REPORT, Run, Study, fingerprint, line, summary
from cflightning.cli.run_folders import first_process, sweep_runs
from cflightning.data.splits.split import TEST
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError
from cflightning.utils.files import make_folder
from cflightning.utils.locks import LOCK, alone_in, waiting_for

PUBLISHED = ["u1", "u2", "u3", "u4", "u5"]
"""The folds of MovieLens 100K."""


class Shared:
    """What the fits of all folds have in common.

    Args:
        count: folds that are asked for; None for the configured number.
        held: keeps the lock of the study.
    """

    def __init__(self, count: int | None, held: ExitStack) -> None:
        self.count = count
        self.held = ExitStack() if held is None else held
        self.folds: list[Any] | None = None  # known when the configuration is
        self.table: RatingTable | None = None
        self.study: Study | None = None

    def choose_folds(self, data: Namespace) -> list[Any]:
        """The folds by the data's options; None stands for the split as it is.

        Raises:
            ConfigError: a split that has no folds, or not as many.
        """
        if self.count == 1:
            return [None]
        method = data.get("split")
        if method == "predefined":
            if data.get("test_path") is not None:
                raise ConfigError("--data.test_path: is one test part; leave it out, or give --folds 1")
            if self.count not in (None, len(PUBLISHED)):
                raise ConfigError(
                    f"--folds: must be 5 (u1 to u5 of MovieLens 100K) with --data.split predefined, got {self.count}"
                )
            return [*PUBLISHED]
        if method not in (None, "random", "kfold"):
            raise ConfigError(
                f"--data.split: must be kfold or predefined for several folds, got {method}; leave it out, or give "
                "--folds 1 to fit that split alone"
            )
        count = data.get("folds") if self.count is None else self.count
        if not isinstance(count, int) or count < 2:
            raise ConfigError(f"--data.folds: must be at least 2, got {count}")
        data.split, data.folds = "kfold", count
        return list(range(1, count + 1))


class Finished(Exception):
    """The run is there already; raised where the command line would begin it."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.folder)
        self.run = run


class FoldCLI(CFLightningCLI):
    """Fits one fold with one seed, in the study's folder, unless that was done before.

    Args:
        shared: by all fits.
        at: number of the fold, from 0.
        repeat: number of the seed, from 0.
        args: Of the command line's class.
        kwargs: Likewise.
    """

    def __init__(self, shared: Shared, at: int, repeat: int, *args: Any, **kwargs: Any) -> None:
        self.shared, self.at, self.repeat = shared, at, repeat
        super().__init__(*args, **kwargs)

    def before_instantiate_classes(self) -> None:
        """Set fold and seed; what is left is the configuration that all runs share."""
        config = self.config[self.subcommand]
        for key, given in (
            ("ckpt_path", self.checkpoint),
            ("trainer.fast_dev_run", config.trainer.fast_dev_run),
            ("checkpoint.dirpath", config.checkpoint.dirpath),
        ):
            if given:
                raise ConfigError(
                    f"--{key}: is {given}, but every fold has a fit and a folder of its own; leave it out"
                )
        data, model = config.data.init_args, config.model.init_args
        self.shared.folds = self.shared.choose_folds(data)
        self.fold = self.shared.folds[self.at]
        self.settings = config.clone().as_dict()
        self.settings.pop("config", None)  # the files' names; what they say stands in the rest
        for key in ("default_root_dir", "enable_progress_bar", "enable_model_summary"):  # change no figure
            del self.settings["trainer"][key]
        if self.fold is not None:
            del self.settings["data"]["init_args"]["fold"]
            data.fold = self.fold
        self.seed = model.get("seed", 0) + self.repeat
        if self.repeat:
            if "seed" not in model:
                raise ConfigError(f"--seeds: must be 1, since {config.model.class_path} has no seed")
            model.seed = self.seed
        for key in ("enable_progress_bar", "enable_model_summary"):
            if config.trainer[key] is None:
                config.trainer[key] = False  # there is a table, and one model
        super().before_instantiate_classes()

    def begin_fit(self, trainer: Trainer, logs: bool) -> None:
        """Find the folder in the study, or that the run is there already."""
        shared = self.shared
        if shared.table is not None:
            self.datamodule.table = shared.table
        elif self.fold not in PUBLISHED:  # each of these is a pair of files
            shared.table = self.datamodule.table
        if self.fold is not None and not self.datamodule.split.sizes[TEST]:
            raise ConfigError(
                f"--folds: fold {self.fold} of {len(shared.folds or [])} has no row to test ("
                f"{len(self.datamodule.table):,} rows in all); choose fewer"
            )
        if shared.study is None:
            root = Path(self.config_init[self.subcommand]["trainer"]["default_root_dir"] or "runs")
            shared.study = open_study(
                root,
                fingerprint({"version": __version__, **self.settings}, self.datamodule.table),
                self.datamodule.table.name,
                shared.held,
            )
        self.run = shared.study.find(self.fold, self.seed)
        if self.run is not None:
            raise Finished(self.run)
        parts = [f"fold_{self.fold}"] if self.fold is not None else []
        self.resumed = shared.study.folder / "_".join([*parts, f"seed_{self.seed}"])
        if not logs and not trainer.loggers:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.dirpath = str(self.resumed / "checkpoints")
        super().begin_fit(trainer, logs)
        self.report.talks = False

    def how_to_go_on(self) -> str:
        """The line that a user reads who has stopped the command."""
        return "stopped; the same command goes on, and keeps the runs that are finished"

    def run_folder(self) -> Path:
        """In the study, whatever loggers there are."""
        assert self.resumed is not None
        return self.resumed

    def after_fit(self) -> None:
        """Keep the figures."""
        super().after_fit()
        assert self.shared.study is not None
        self.run = Run(self.fold, self.seed, self.run_folder().name, self.report.result)
        self.shared.study.add(self.run)


def open_study(root: Path, fingerprint: str, data: str, held: ExitStack) -> Study:
    """Find or make a study, and lock it; every process must ask.

    Args:
        root: where studies lie.
        fingerprint: of the configuration and the data.
        data: name of the table.
        held: keeps the lock.

    Raises:
        ConfigError: another process works on it.
    """
    if not first_process():
        return Study(root, fingerprint, {"data": data}, write=False)
    make_folder(root)
    sweep_runs(root)
    with waiting_for(root / LOCK):  # two commands at once must not make two studies of one
        study = Study(root, fingerprint, {"data": data})
        held.enter_context(alone_in(study.folder))
    study.refresh()  # another command may have finished a run just before
    return study


def run_folds(args: list[str], count: int | None, seeds: int, started: float | None = None) -> Study:
    """Fit every fold with every seed; print a table as it goes.

    Args:
        args: Options of `fit`.
        count: folds; None for the configured number.
        seeds: fits of each.
        started: `time.perf_counter()` when the process began.

    Returns:
        All runs, finished now or before.
    """
    with ExitStack() as held:
        return _run_folds(Shared(count, held), seeds, args, started)


def _run_folds(shared: Shared, seeds: int, args: list[str], started: float | None) -> Study:
    """Fit fold after fold."""
    for at in itertools.count():
        if shared.folds is not None and at == len(shared.folds):
            break
        for repeat in range(seeds):
            run, kept = _fit_or_keep(shared, at, repeat, args, started)
            started = None  # the next ones begin now
            if at == repeat == 0:
                _tell("\n" + line("", None))
            notes = ["worse than bias only"] if run.metrics.get("test/rmse_gain", 0) < 0 else []
            _tell(line(run.folder.replace("_", " "), run.metrics, ", ".join([*notes, *["kept"] * kept])))
    assert shared.study is not None
    for name, figures in summary(shared.study.runs).items():
        _tell(line(name.replace("_", " "), figures))
    _tell(f"report  {os.path.relpath(shared.study.folder / REPORT)}")
    return shared.study


def _fit_or_keep(shared: Shared, at: int, repeat: int, args: list[str], started: float | None) -> tuple[Run, bool]:
    """One fit: what came out, and whether it was there before."""
    with warnings.catch_warnings():
        # The process has arguments as well, and they are not fit's.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        try:
            cli = fit(["fit", *args], started=started, kind=partial(FoldCLI, shared, at, repeat))
        except Finished as finished:
            return finished.run, True
    assert isinstance(cli, FoldCLI)
    assert cli.run is not None
    return cli.run, False


_tell = rank_zero_only(print)

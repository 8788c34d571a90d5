"""Cross-validation: one fit for every fold and seed."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer import Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.cli.kfold.study import REPORT, Fold, Run, Study, format_line, summarise
from cflightning.cli.run_folders import first_process, relative
from cflightning.cli.studies import fingerprint, open_study, refuse_options, shared_options
from cflightning.cli.training.cli import TrainingCLI
from cflightning.data.splits.split import TEST
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError

PUBLISHED = ("u1", "u2", "u3", "u4", "u5")
"""Folds of MovieLens 100K."""


class CrossValidation:
    """State that the fits of all folds share.

    Args:
        count: Number of folds; None for that of the configuration.
        locks: Holds the lock of the study.

    Attributes:
        folds: The folds, from the first fit on; None stands for the split as configured.
        table: The table, read once.
        study: The runs so far.
    """

    def __init__(self, count: int | None, locks: ExitStack) -> None:
        self.count, self.locks = count, locks
        self.folds: list[Fold] = []
        self.table: RatingTable | None = None
        self.study: Study | None = None

    def choose_folds(self, data: Namespace) -> list[Fold]:
        """Return the folds by the options of the data, which are set to split by folds.

        Raises:
            ConfigError: The split has no folds, or another number of them.
        """
        if self.count == 1:
            return [None]
        split = data.get("split") or {}
        method = split.get("method")
        if method == "predefined":
            if data.get("test_path") is not None:
                raise ConfigError("--data.test_path: is one test part; leave it out, or give --folds 1")
            if self.count not in (None, len(PUBLISHED)):
                raise ConfigError(
                    "--folds: must be 5 (u1 to u5 of MovieLens 100K) with --data.split.method predefined, got "
                    f"{self.count}"
                )
            return [*PUBLISHED]
        if method not in (None, "random", "kfold"):
            raise ConfigError(
                f"--data.split.method: must be kfold or predefined for several folds, got {method}; leave it out, "
                "or give --folds 1 to fit that split alone"
            )
        count = split.get("folds") if self.count is None else self.count
        if not isinstance(count, int) or count < 2:
            raise ConfigError(f"--data.split.folds: must be at least 2, got {count}")
        split["method"], split["folds"] = "kfold", count
        return list(range(1, count + 1))


class FoldCLI(TrainingCLI):
    """The fit of one fold with one seed, in the folder of the study, unless the study has it already.

    Args:
        args: Options of `fit`.
        started: See `TrainingCLI`.
        validation: State that all fits share.
        index: Index of the fold, from 0.
        repeat: Index of the seed, from 0.

    Attributes:
        run: The finished run.
        kept: Whether it was finished by an earlier command.
    """

    def __init__(
        self, args: list[str], started: float | None, validation: CrossValidation, index: int, repeat: int
    ) -> None:
        self.validation, self.index, self.repeat = validation, index, repeat
        self.run: Run | None = None
        self.kept = False
        super().__init__(["fit", *args], started, verbose=False)

    def before_instantiate_classes(self) -> None:
        """Set fold and seed, and keep the options that all runs share for the fingerprint."""
        config = self.config[self.subcommand]
        reason = "every fold has its own fit and folder"
        options = ("ckpt_path", "trainer.fast_dev_run", "checkpoint.dirpath")
        refuse_options(config, self.checkpoint, dict.fromkeys(options, reason))
        data, model = config.data.init_args, config.model.init_args
        self.validation.folds = self.validation.choose_folds(data)
        self.fold = self.validation.folds[self.index]
        self.options = shared_options(config)
        if self.fold is not None:
            del self.options["data"]["init_args"]["split"]["fold"]
            data.split.fold = self.fold
        self.seed = model.get("seed", 0) + self.repeat
        if self.repeat:
            if "seed" not in model:
                raise ConfigError(f"--seeds: must be 1, since {config.model.class_path} has no seed")
            model.seed = self.seed
        for key in ("enable_progress_bar", "enable_model_summary"):
            if config.trainer[key] is None:
                config.trainer[key] = False  # `run_folds` prints a line for each run
        super().before_instantiate_classes()

    def begin_fit(self, trainer: Trainer, own_loggers: bool) -> None:
        """Find the run in the study, or choose its folder there."""
        validation = self.validation
        if validation.table is not None:
            self.datamodule.table = validation.table
        elif self.fold not in PUBLISHED:  # each of these has files of its own
            validation.table = self.datamodule.table
        if self.fold is not None and not self.datamodule.split.sizes[TEST]:
            raise ConfigError(
                f"--folds: fold {self.fold} of {len(validation.folds)} has no row to test "
                f"({len(self.datamodule.table):,} rows in all); choose fewer"
            )
        if validation.study is None:
            digest = fingerprint(self.options, self.datamodule.table)
            folder = open_study(self.root, REPORT, digest, validation.locks)
            validation.study = Study(folder, digest, self.datamodule.table.name, writes=first_process())
        self.run = validation.study.find(self.fold, self.seed)
        self.kept = self.run is not None
        if self.kept:
            return
        parts = [f"fold_{self.fold}"] if self.fold is not None else []
        self.resumed = validation.study.folder / "_".join([*parts, f"seed_{self.seed}"])
        if not own_loggers and not trainer.loggers:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.dirpath = str(self.resumed / "checkpoints")
        super().begin_fit(trainer, own_loggers)

    def fit(self, **kwargs: Any) -> None:
        """Fit, unless the run is kept; LightningCLI calls this method in place of `Trainer.fit`."""
        if not self.kept:
            self.trainer.fit(**kwargs)

    def after_fit(self) -> None:
        """Test, and add the run to the study."""
        if self.kept:
            return
        super().after_fit()
        assert self.validation.study is not None
        self.run = Run(self.fold, self.seed, self.run_folder().name, self.report.metrics)
        self.validation.study.add(self.run)

    def run_folder(self) -> Path:
        """Return the folder in the study, whatever loggers there are."""
        assert self.resumed is not None
        return self.resumed

    def resume_advice(self) -> str:
        """Return the message to a user who stopped the command."""
        return "stopped; the same command continues and keeps the finished runs"


def run_folds(args: list[str], count: int | None, seeds: int, started: float) -> Study:
    """Fit every fold with every seed, and print a line for each run.

    Args:
        args: Options of `fit`.
        count: Number of folds; None for that of the configuration.
        seeds: Fits of each fold.
        started: `time.perf_counter()` at the start of the process.

    Returns:
        All runs, including those of earlier commands.
    """
    show = rank_zero_only(print)
    with ExitStack() as locks:
        validation = CrossValidation(count, locks)
        for index in itertools.count():
            if validation.folds and index == len(validation.folds):
                break
            for repeat in range(seeds):
                first = index == repeat == 0
                cli = FoldCLI(args, started if first else None, validation, index, repeat)
                assert cli.run is not None
                if first:
                    show("\n" + format_line("", None))
                notes = ["worse than the baseline"] if cli.run.metrics.get("test/rmse_gain", 0) < 0 else []
                notes += ["kept"] if cli.kept else []
                show(format_line(cli.run.folder.replace("_", " "), cli.run.metrics, ", ".join(notes)))
        assert validation.study is not None
        for name, metrics in summarise(validation.study.runs).items():
            show(format_line(name.replace("_", " "), metrics))
        show(f"report  {relative(validation.study.folder / REPORT)}")
        return validation.study

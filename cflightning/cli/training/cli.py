"""The LightningCLI of the training commands, with the defaults, callbacks and checkpoints of this project."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from contextlib import ExitStack, nullcontext
from pathlib import Path

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer import Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.checkpoint.format import KEY, read_checkpoint, unpack_metadata
from cflightning.checkpoint.paths import best_checkpoint
from cflightning.cli.failures import advice_on_storage, exception_chain, resource_error
from cflightning.cli.run_folders import claim_run, first_process, loggers, relative, sweep_runs
from cflightning.cli.stopping import Stopped, stop_status
from cflightning.cli.training.defaults import add_options, set_run_defaults
from cflightning.cli.training.option_errors import explain
from cflightning.cli.training.output import ignore_warnings, show_log_lines
from cflightning.cli.training.predictions import write_predictions
from cflightning.cli.training.report import RunReport
from cflightning.cli.training.resume import (
    data_defaults,
    find_checkpoint,
    planned_epochs,
    refuse_empty_paths,
    task_config,
)
from cflightning.cli.training.trainer import choose_callbacks, choose_plugins, keep_last_epoch
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.leakage import Use, check_rows
from cflightning.data.provenance import Provenance
from cflightning.data.splits.split import TEST, VAL
from cflightning.errors import ArgumentError, CFLightningError, ConfigError, StorageError
from cflightning.evaluation.baselines import RankingBaselines
from cflightning.evaluation.ratings import RatingEvaluation
from cflightning.tasks import embedding_dot, embedding_mlp  # noqa: F401  (the tasks that a checkpoint may name)
from cflightning.tasks.base import NetworkTask
from cflightning.utils.distributed import check_launch, check_strategy, find_launch, shared_failures, shared_file
from cflightning.utils.files import make_folder

log = logging.getLogger(__name__)


class TrainingCLI(LightningCLI):
    """LightningCLI with early stopping, checkpoints and a run report; `fit` ends with a test of the best checkpoint.

    Args:
        args: Command-line arguments; the first one is `fit`, `validate`, `test` or `predict`.
        started: `time.perf_counter()` at the start of the process, for the report; None for now.
        save_config: Whether a fit writes its configuration into the run folder.
        verbose: Whether a fit prints its metrics at the end.

    Attributes:
        checkpoint: The file of `--ckpt_path`, or None.
        provenance: The data of that checkpoint, if it has them.
        resumed: The run folder in which a fit continues, or None.

    Raises:
        CFLightningError: An option, the data or the checkpoint is wrong, or disk or memory do not suffice.
        Stopped: A signal ended the command.
    """

    def __init__(
        self, args: list[str], started: float | None = None, *, save_config: bool = True, verbose: bool = True
    ) -> None:
        self.arguments, self.verbose = args, verbose
        self.imported = time.perf_counter()
        self.started = self.imported if started is None else started
        self.checkpoint: Path | None = None
        self.provenance: Provenance | None = None
        self.resumed: Path | None = None
        show_log_lines()
        with warnings.catch_warnings(), ExitStack() as self.locks:
            ignore_warnings()
            try:
                super().__init__(
                    NetworkTask,
                    RatingsDataModule,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    save_config_callback=SaveConfigCallback if save_config else None,
                    save_config_kwargs={"overwrite": True},
                    trainer_defaults={"default_root_dir": "runs", "log_every_n_steps": 1},
                    parser_kwargs={"prog": "python -m cflightning", "exit_on_error": False, "allow_abbrev": False},
                    seed_everything_default=0,  # for dropout; the split and the initial parameters have their own seeds
                    auto_configure_optimizers=False,
                    args=args,
                )
            except (KeyboardInterrupt, SystemExit) as error:
                status = stop_status(error)
                if status is None:
                    raise
                raise Stopped(status, self.resume_advice() if first_process() else "") from None
            except argparse.ArgumentError as error:
                raise ConfigError(self.explain(error)) from None
            except Exception as error:
                failure = resource_error(error, self.memory_advice())
                if failure is None:
                    raise
                advice = advice_on_storage(error) if isinstance(failure, StorageError) else ""
                last = self.last_checkpoint()
                raise type(failure)(f"{failure}{advice}{f'; {last} is kept' if last else ''}") from error

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning calls it on the instance
        """Return the subcommand of the arguments alone: building the parsers of the others takes time."""
        every: dict[str, set[str]] = LightningCLI.subcommands()
        return {name: skipped for name, skipped in every.items() if name == self.arguments[0]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the callbacks that are on by default."""
        self.command_parser = parser
        add_options(parser)

    def explain(self, error: argparse.ArgumentError) -> str:
        """Describe a wrong option in one line."""
        try:
            options = [*self.command_parser.get_defaults().keys()]
        except (argparse.ArgumentError, TypeError, ValueError):  # defaults from a checkpoint can be wrong themselves
            options = []
        return explain(str(error), options)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the options; with `--ckpt_path`, take the settings of task and data from the checkpoint."""
        refuse_empty_paths(self.arguments)
        super().parse_arguments(parser, args)
        command = str(self.config.subcommand)
        config = self.config[command]
        if not config.get("ckpt_path"):
            return
        folder = (config.get("checkpoint") or {}).get("dirpath")
        path = find_checkpoint(str(config.ckpt_path), Path(config.trainer.default_root_dir or "runs"), folder)
        content = read_checkpoint(path, mapped=True)
        self.checkpoint = path
        self.resumed = path.parent.parent if path.parent.name == "checkpoints" else None
        self.provenance = unpack_metadata(content, str(path))[1].data
        if self.provenance is not None and (data := data_defaults(self.provenance, config.data, command)):
            self.command_parser.set_defaults({"data": data})
            super().parse_arguments(parser, args)
        # Lightning would import the classes that the checkpoint names, so it gets the path after they are checked.
        self.config[command].ckpt_path = None
        task = task_config(content, str(path), command, self.config[command])
        self.config = parser.parse_object({command: task}, self.config)

    def before_instantiate_classes(self) -> None:
        """Set the defaults that depend on the objective and the engine."""
        config = self.config[self.subcommand]
        config.ckpt_path = None if self.checkpoint is None else str(self.checkpoint)
        if config.trainer.enable_checkpointing is False:
            raise ConfigError("--trainer.enable_checkpointing: must be true; test and export need a checkpoint")
        if config.trainer.max_epochs is None and self.subcommand == "fit" and self.resumed is not None:
            config.trainer.max_epochs = planned_epochs(self.resumed)
        set_run_defaults(config)

    def instantiate_classes(self) -> None:
        """Make data, model and Trainer; an error of a constructor names the option instead of the argument."""
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps the errors of constructors
            cause = next((cause for cause in exception_chain(error) if isinstance(cause, CFLightningError)), None)
            if isinstance(cause, ArgumentError):
                raise ConfigError(cause.option) from error
            if cause is None:
                raise
            raise cause from None

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Make a Trainer with the report, the evaluation and, unless the options name others, loggers and progress."""
        settings = self.config_init[self.subcommand]["trainer"]
        self.report, self.evaluation = RunReport(self.started, self.imported, self.verbose), RatingEvaluation()
        callbacks = choose_callbacks(settings, [self.report, self.evaluation, RankingBaselines()])
        if settings["enable_model_summary"] is None:
            settings["enable_model_summary"] = False  # matrix factorisation has a single module
        plugins = choose_plugins(settings, str(self.config[self.subcommand].checkpoint.dirpath or ""))
        own_loggers = self.subcommand == "fit" and settings["logger"] in (None, True)
        if own_loggers or settings["logger"] is None:
            kwargs["logger"] = False  # added by `begin_fit`, when the rank of this process is known
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        except CFLightningError:
            raise
        except (ImportError, ValueError, RuntimeError, TypeError) as error:  # a value that Lightning refuses
            raise ConfigError(f"--trainer: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(trainer.strategy, ParallelStrategy):
            # Lightning reads the rank from RANK, SLURM_PROCID and others, which may belong to another program.
            rank_zero_only.rank = 0  # type: ignore[attr-defined]
            show_log_lines()
        check_strategy(trainer)
        if settings["devices"] == "auto":  # a number is deliberate
            check_launch(trainer, find_launch())
        with shared_failures(trainer):
            self.check_data()
        if self.subcommand == "fit":
            self.begin_fit(trainer, own_loggers and not settings["fast_dev_run"])
        elif first_process():
            sweep_runs(make_folder(self.root))  # an unwritable folder fails before hours of scoring
        return trainer

    @property
    def root(self) -> Path:
        """Folder of the runs."""
        return Path(self.config_init[self.subcommand]["trainer"]["default_root_dir"] or "runs")

    def check_data(self) -> None:
        """Compare the data with those of the checkpoint before any file of its run changes; see `check_rows`."""
        stages: dict[str | None, Use] = {"fit": "fit", "validate": "validate", "test": "test"}
        stage = stages.get(self.subcommand)
        if self.provenance is None or stage is None:
            return
        check_rows(self.provenance, self.datamodule, stage)
        if self.provenance.fingerprint != self.datamodule.table.fingerprint:
            self.resumed = None  # other data get a run folder of their own

    def begin_fit(self, trainer: Trainer, own_loggers: bool) -> None:
        """Read the data, then choose the run folder, so that a bad table leaves none behind.

        Args:
            trainer: Gets loggers, and callbacks that fit the data.
            own_loggers: Whether to add the loggers of this project.
        """
        validation_rows = 0
        with shared_failures(trainer):
            validation_rows = self.datamodule.split.sizes[VAL]
        if not validation_rows or trainer.limit_val_batches == 0:
            trainer.limit_val_batches = 0
            keep_last_epoch(trainer, self.config_init[self.subcommand])
        if own_loggers:
            trainer.loggers = loggers(claim_run(self.root, self.resumed, self.locks))

    def after_fit(self) -> None:
        """Test the best checkpoint and write the report."""
        if self.config_init[self.subcommand]["trainer"]["fast_dev_run"]:
            return
        best = best_checkpoint(self.trainer)
        if not best:
            log.warning("no checkpoint was written: there was nothing left to train")
        with shared_file(Path(best)) if best and "://" not in best else nullcontext(best) as path:
            if self.datamodule.split.sizes[TEST]:
                self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=str(path) or None, verbose=False)
                best_epoch = self.model.metadata.metrics  # loaded with the checkpoint
            else:
                best_epoch = read_checkpoint(Path(path))[KEY]["metrics"] if best else {}
        self.report.finish(self.trainer, self.run_folder(), self.evaluation, best, best_epoch)

    def run_folder(self) -> Path:
        """Return the folder for the report of a fit; every process must call this."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    def after_test(self) -> None:
        """Write the report beside the runs: the report in the run folder is that of its fit."""
        if not self.config_init[self.subcommand]["trainer"]["fast_dev_run"]:
            log_dir = self.trainer.log_dir if self.trainer.loggers else None
            folder = Path(log_dir or Path(self.trainer.default_root_dir) / "test")
            self.report.finish(self.trainer, folder, self.evaluation)

    def after_predict(self) -> None:
        """Write the scores with the ids of the table."""
        write_predictions(self.trainer, self.datamodule, Path(self.trainer.default_root_dir) / "predictions.csv")

    def memory_advice(self) -> str:
        """Name the options that reduce the memory of a run."""
        dim = getattr(getattr(self, "model", None), "dim", None) or "its default"
        return f"; lower --model.dim ({dim}) or --data.batch_size, or use fewer rows"

    def last_checkpoint(self) -> str:
        """Return the path of the newest checkpoint from which this fit can continue; empty without one."""
        trainer = getattr(self, "trainer", None)
        for callback in trainer.checkpoint_callbacks if trainer is not None else ():
            last = Path(getattr(callback, "dirpath", None) or "") / "last.ckpt"
            if getattr(self, "subcommand", None) == "fit" and last.is_file():
                return relative(last)
        return ""

    def resume_advice(self) -> str:
        """Return the command by which a stopped fit continues."""
        if self.arguments[0] != "fit":
            return "stopped"
        if last := self.last_checkpoint():
            return f"stopped; continue with: python -m cflightning fit --ckpt_path {last}"
        return "stopped before the first checkpoint was written; start again with the same command"

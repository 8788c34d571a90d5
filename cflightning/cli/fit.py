"""Training from the command line: a stock LightningCLI with this project's defaults."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, LRSchedulerTypeTuple
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer import Trainer
from lightning_utilities.core.rank_zero import rank_zero_only

from cflightning.checkpoint.format import KEY, FileCheckpointIO, find, read, refuse_address, unpack
from cflightning.checkpoint.rules import DESCRIBED, check_files, check_names, foreign, is_inside, plain_settings
from cflightning.cli.callbacks import EpochLines, StopAtOnce
from cflightning.cli.failures import advice_on_storage, resource_error
from cflightning.cli.option_errors import explain
from cflightning.cli.report import RunReport, short, write_predictions
from cflightning.cli.run_folders import claim_run, first_process, loggers, single_task, sweep_runs
from cflightning.cli.stopping import Stopped, stop_status
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.provenance import Provenance, Stage, check_rows, data_settings
from cflightning.data.splits.split import TEST, VAL
from cflightning.engines.base import DEFAULT_EPOCHS, DEFAULT_SWEEPS
from cflightning.errors import ArgumentError, CFLightningError, CheckpointError, ConfigError, StorageError
from cflightning.evaluation.baselines import Comparison
from cflightning.evaluation.ratings import Evaluation
from cflightning.objectives.rankers import Ranker
from cflightning.objectives.sampled_losses import EPOCHS as CHOICE_EPOCHS
from cflightning.objectives.sampled_losses import USUAL
from cflightning.tasks import embedding  # noqa: F401  (its tasks are then known by their names)
from cflightning.tasks.base import task_class
from cflightning.tasks.bias_blending import blend_with_biases
from cflightning.tasks.ranking import default_objective
from cflightning.tasks.rating import RatingTask
from cflightning.utils.distributed import check_launch, check_strategy, find_launch, shared_failures, shared_file
from cflightning.utils.files import make_folder

log = logging.getLogger(__name__)

DATA = ("cflightning.RatingsDataModule", "cflightning.data.datamodule.RatingsDataModule")
PATH_OPTIONS = ("--ckpt_path", *(f"--data.{name}" for name in ("path", "test_path", "init_args.path",
                                                               "init_args.test_path")))  # fmt: skip
PATIENCE = 3
"""Epochs without a better one, after which training stops."""


class CFLightningCLI(LightningCLI):
    """Adds early stopping, checkpoints, loggers and the report of a run; `fit` ends by testing the best checkpoint.

    Args:
        args: of LightningCLI.
        held: keeps the locks of run folders until it is closed.
        kwargs: of LightningCLI.

    Raises:
        Stopped: by a signal.
    """

    def __init__(self, *args: Any, held: ExitStack | None = None, **kwargs: Any) -> None:
        self.held = ExitStack() if held is None else held
        try:
            super().__init__(*args, **kwargs)
        except (KeyboardInterrupt, SystemExit) as error:
            status = stop_status(error)
            if status is None:
                raise
            raise Stopped(status, self.how_to_go_on() if first_process() else "") from None
        except argparse.ArgumentError as error:
            raise ConfigError(self.explain(error)) from None
        except Exception as error:
            failure = resource_error(error, self.advice_on_memory())
            if failure is None:
                raise
            storage = advice_on_storage(error) if isinstance(failure, StorageError) else ""
            kept = self.last_checkpoint()
            raise type(failure)(f"{failure}{storage}{f'; {kept} is kept' if kept else ''}") from error

    def advice_on_memory(self) -> str:
        """Options that make a run need less memory, with their values."""
        dim = getattr(getattr(self, "model", None), "dim", None) or "its default"
        return f"; lower --model.dim ({dim}) or --data.batch_size, or take fewer rows"

    def last_checkpoint(self) -> str:
        """Path of the newest state of this fit that can be gone on with; empty where there is none."""
        trainer = getattr(self, "trainer", None)
        for callback in trainer.checkpoint_callbacks if trainer is not None else ():
            last = Path(getattr(callback, "dirpath", None) or "") / "last.ckpt"
            if getattr(self, "subcommand", None) == "fit" and last.is_file():
                return short(str(last))
        return ""

    def explain(self, error: argparse.ArgumentError) -> str:
        """Tell a mistake in the options in one line."""
        try:
            options = [*self.of_command.get_defaults().keys()]
        except (
            argparse.ArgumentError,
            TypeError,
            ValueError,
        ):  # defaults that came from a checkpoint may be wrong themselves
            options = []
        return explain(str(error), options)

    only: ClassVar[str | None] = None
    """The subcommand that is asked for, if that is known: parsers for the others need not be built."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own, or the only one that is needed."""
        known: dict[str, set[str]] = LightningCLI.subcommands()
        only = CFLightningCLI.only
        return {only: known[only]} if only in known else known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Callbacks that are on by default, with their options."""
        self.of_command = parser
        self.parsers = [*getattr(self, "parsers", []), parser]  # of the subcommands, in their order
        # Linked as descriptions: the automatic way would make them at once, before the network has parameters.
        parser.add_optimizer_args((torch.optim.Optimizer,))
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple)
        for key in ("optimizer", "lr_scheduler"):
            parser.link_arguments(key, f"model.init_args.{key}", compute_fn=_plain)
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        # A second one, since save_last of the first saves only when the best improves.
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")
        parser.link_arguments("checkpoint.dirpath", "last_checkpoint.dirpath")
        parser.set_defaults(
            {
                "model": {"class_path": "cflightning.EmbeddingDotTask"},
                "data": {"class_path": "cflightning.RatingsDataModule"},
                "early_stopping.monitor": "val/rmse",
                "early_stopping.patience": PATIENCE,
                "early_stopping.strict": False,  # a run can end before its first validation
                "checkpoint.monitor": "val/rmse",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": True,  # when the epoch's training loss is known as well
                "last_checkpoint.filename": "last",
                "last_checkpoint.mode": "max",  # of nothing; it only tells the states of the two apart
                "last_checkpoint.enable_version_counter": False,
                "last_checkpoint.save_on_train_epoch_end": True,
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Turn ``--ckpt_path last``, ``best`` or a run folder into a file, and take over its settings."""
        refuse_empty_paths(sys.argv[1:] if args is None else args)
        super().parse_arguments(parser, args)
        self.checkpoint: Path | None = None
        self.resumed: Path | None = None
        self.provenance: Provenance | None = None
        if self.config.get("subcommand") is None:
            return
        config = self.config[self.config.subcommand]
        if not config.get("ckpt_path"):
            return
        folder = (config.get("checkpoint") or {}).get("dirpath")
        path = _checkpoint_file(str(config.ckpt_path), Path(config.trainer.default_root_dir or "runs"), folder)
        self.checkpoint = path
        self.resumed = path.parent.parent if path.parent.name == "checkpoints" else None
        content = read(path, mapped=True)
        self.provenance = Provenance.from_state(unpack(content, str(path))[1].get("data"))
        if self.provenance is not None and self._lend_data_settings(self.provenance):
            super().parse_arguments(parser, args)
        # Lightning would import what the checkpoint names, so it is told the file only when that is done.
        self.config[self.config.subcommand].ckpt_path = None
        self._take_settings(parser, content)

    def _lend_data_settings(self, kept: Provenance) -> bool:
        """Make a checkpoint's data settings the defaults, below what is given; whether there is anything to parse."""
        command = str(self.config.subcommand)
        if self.config[command].data.class_path not in DATA:
            return False
        given = self.config[command].data.init_args.as_dict()
        settings = data_settings(kept, given, command)
        if not settings:
            return False
        parser = self.parsers[list(self.subcommands()).index(command)]
        parser.set_defaults({"data": {"class_path": DATA[0], "init_args": settings}})
        return True

    def _take_settings(self, parser: LightningArgumentParser, content: dict[str, Any]) -> None:
        """Put the settings of a checkpoint's task into the configuration, in place of those that are given."""
        command, source = self.config.subcommand, str(self.checkpoint)
        kind, settings = task_class(content, source), plain_settings(content, source)
        check_names(settings, kind, source)
        check_files(settings, kind, source)
        taken: dict[str, Any] = {}
        unknown = foreign(content)
        for name in DESCRIBED:  # what is linked into the model has to come from where the link starts
            described = settings.pop(name, None)
            if command != "fit" or self.config.fit.get(name) is not None:
                continue
            if name in unknown:
                raise CheckpointError(
                    f"{source}: names the {name} {unknown[name]}, which is none of torch's; give it again by --{name}"
                )
            if described:
                taken[name] = described
        model = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": settings}
        self.config = parser.parse_object({command: {"model": model, **taken}}, self.config)

    def before_instantiate_classes(self) -> None:
        """Defaults that hang on the engine."""
        config = self.config[self.subcommand]
        config.ckpt_path = None if self.checkpoint is None else str(self.checkpoint)
        if config.trainer.enable_checkpointing is False:
            raise ConfigError(
                "--trainer.enable_checkpointing: must be true; what is tested and exported is a checkpoint"
            )
        settings = config.model.init_args
        objective, sampling = objective_of(config), settings.get("engine") == "gibbs"
        passes = dict.fromkeys(USUAL, CHOICE_EPOCHS)
        if settings.get("engine") != "autograd":
            passes |= {name: ranker.passes for name, ranker in Ranker.known.items()}
        if config.trainer.max_epochs is None and self.subcommand == "fit" and self.resumed is not None:
            config.trainer.max_epochs = _planned_epochs(self.resumed)
        if config.trainer.max_epochs is None:
            config.trainer.max_epochs = DEFAULT_SWEEPS if sampling else passes.get(objective, DEFAULT_EPOCHS)
        if sampling and config.early_stopping.patience == PATIENCE:
            config.early_stopping.patience = DEFAULT_SWEEPS // 2  # what a mean of draws learns shows late
        if objective in passes:
            for callback in (config.checkpoint, config.early_stopping):
                if callback.monitor == "val/rmse":
                    callback.monitor, callback.mode = "val/ndcg@10", "max"
            if config.early_stopping.patience == PATIENCE:
                config.early_stopping.patience = 10  # lists change little from pass to pass

    def instantiate_classes(self) -> None:
        """Make data, model and Trainer; what a constructor refuses is said in the command line's words."""
        try:
            super().instantiate_classes()
        except ValueError as error:  # jsonargparse wraps what constructors raise
            found: BaseException | None = error
            while found is not None and not isinstance(found, CFLightningError):
                found = found.__cause__ or found.__context__
            if isinstance(found, ArgumentError):
                raise ConfigError(found.option) from error
            if found is None:
                raise
            raise found from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer with the project's loggers and a calmer progress bar, unless the config names others."""
        settings = self.config_init[self.subcommand]["trainer"]
        self.report, self.evaluation = RunReport(), Evaluation()
        callbacks = [*(settings["callbacks"] or []), self.report, self.evaluation, Comparison(), StopAtOnce()]
        bar = any(hasattr(c, "refresh_rate") for c in callbacks)
        if settings["enable_progress_bar"] is None and not bar and not sys.stdout.isatty():
            settings["enable_progress_bar"] = False  # a file would hold every redraw
            callbacks.append(EpochLines())
        elif settings["enable_progress_bar"] is not False and not bar:
            callbacks.append(TQDMProgressBar(refresh_rate=20))  # drawing every step costs more than the step
        if settings["enable_model_summary"] is None:
            settings["enable_model_summary"] = False  # tables of modules say nothing of a factorisation
        plugins = settings["plugins"] or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            chosen = str(self.config[self.subcommand].checkpoint.dirpath or "")
            plugins.append(FileCheckpointIO(chosen if "://" in chosen else None))
        logs = self.subcommand == "fit" and settings["logger"] in (None, True)
        if logs or settings["logger"] is None:
            kwargs["logger"] = False  # a run folder is made when it is known which process this is
        if single_task(settings) and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(LightningEnvironment())
        try:
            trainer = super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)
        except CFLightningError:
            raise
        except (ImportError, ValueError, RuntimeError, TypeError) as error:  # a choice that Lightning does not know
            raise ConfigError(f"--trainer: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(trainer.strategy, ParallelStrategy):
            # Lightning believes RANK, SLURM_PROCID and the like, which may be of another program.
            rank_zero_only.rank = 0  # type: ignore[attr-defined]
            _show_progress()
        check_strategy(trainer)
        if settings["devices"] == "auto":  # a number was chosen on purpose
            check_launch(trainer, find_launch())
        with shared_failures(trainer):
            self._check_data()
        if self.subcommand == "fit":
            self.begin_fit(trainer, logs and not settings["fast_dev_run"])
        elif first_process():
            sweep_runs(make_folder(Path(settings["default_root_dir"] or "runs")))  # before hours of scoring
        return trainer

    def _check_data(self) -> None:
        """Refuse other data than the checkpoint's while nothing of its run has been touched; see `check_rows`."""
        stages: dict[str | None, Stage] = {"fit": "fit", "validate": "validate", "test": "test"}
        stage = stages.get(self.subcommand)
        if self.provenance is None or stage is None:
            return
        check_rows(self.provenance, self.datamodule, stage)
        if self.provenance.fingerprint != self.datamodule.table.fingerprint:
            self.resumed = None  # a run of its own

    def begin_fit(self, trainer: Trainer, logs: bool) -> None:
        """Read the data, then choose the run folder: a bad table must leave none.

        Args:
            trainer: is given loggers, and callbacks that suit the data.
            logs: whether the loggers are the project's.
        """
        validated = 0
        with shared_failures(trainer):
            validated = self.datamodule.split.sizes[VAL]
        if not validated or trainer.limit_val_batches == 0:
            trainer.limit_val_batches = 0
            self._keep_last(trainer)
        if logs:
            root = Path(self.config_init[self.subcommand]["trainer"]["default_root_dir"] or "runs")
            trainer.loggers = loggers(claim_run(root, self.resumed, self.held))

    def _keep_last(self, trainer: Trainer) -> None:
        """Without a validation part there is nothing to stop by: train to the end and keep the last epoch."""
        config = self.config_init[self.subcommand]
        config["checkpoint"].monitor, config["checkpoint"].mode = None, "min"  # the other one has max
        # The loss alone is looked at, whether it is a number.
        stopping = EarlyStopping("train/loss", patience=1_000_000, check_on_train_epoch_end=True)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[callbacks.index(config["early_stopping"])] = stopping

    def how_to_go_on(self) -> str:
        """The line that a user reads who has stopped the command."""
        if getattr(self, "subcommand", "fit") != "fit":
            return "stopped"
        if last := self.last_checkpoint():
            return f"stopped; go on with: python -m cflightning fit --ckpt_path {last}"
        return "stopped before an epoch was kept; start again with the same command"

    def after_fit(self) -> None:
        """Test the best checkpoint and write the report."""
        if self.config_init[self.subcommand]["trainer"]["fast_dev_run"]:
            return
        kept = self.trainer.checkpoint_callback
        best, folder = (kept.best_model_path, str(kept.dirpath)) if isinstance(kept, ModelCheckpoint) else ("", "")
        if "://" not in best and not is_inside(best, folder):
            best = ""  # what another run's checkpoint has named
        if not best:
            log.warning("no checkpoint was written: there was nothing left to train")
        if best and getattr(self.model, "predicts_ratings", True) and self.trainer.is_global_zero and "://" not in best:
            blend_with_biases(Path(best), self.datamodule, self.evaluation.baseline(self.datamodule))
        self.trainer.strategy.barrier()
        with shared_file(Path(best)) if best and "://" not in best else nullcontext(best) as found:
            if self.datamodule.split.sizes[TEST]:
                path = str(found) or None
                self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False)
                kept_figures = self.model.facts.get("metrics", {})  # came with the checkpoint
            else:
                kept_figures = read(Path(found))[KEY]["metrics"] if best else {}
        self.report.finish(self.trainer, self.run_folder(), self.evaluation, best, kept_figures)

    def run_folder(self) -> Path:
        """Where the report of a fit goes; every process must ask."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    def after_test(self) -> None:
        """Write the report, beside the runs: the run's own is that of its fit."""
        if not self.config_init[self.subcommand]["trainer"]["fast_dev_run"]:
            logged = self.trainer.log_dir if self.trainer.loggers else None
            folder = Path(logged or Path(self.trainer.default_root_dir) / "test")
            self.report.finish(self.trainer, folder, self.evaluation)

    def after_predict(self) -> None:
        """Write the scores beside the table's ids."""
        write_predictions(self.trainer, self.datamodule, Path(self.trainer.default_root_dir) / "predictions.csv")


def refuse_empty_paths(args: Any) -> None:
    """Refuse a path that was given and is none, as of an empty variable: it would count as not given.

    Args:
        args: Command-line arguments; a configuration (a dict) may hold None.

    Raises:
        ConfigError: Names the first of them.
    """
    if not isinstance(args, list):
        return
    for at, arg in enumerate(args):
        option, equals, value = str(arg).partition("=")
        value = value if equals else str(args[at + 1]) if at + 1 < len(args) else ""
        if option in PATH_OPTIONS and value.strip().lower() in ("", "null", "~"):
            what = "a run or a checkpoint" if option == "--ckpt_path" else "a file or folder"
            way = "leave it out" + (f", or write ./{value}" if value.strip() else "")
            raise ConfigError(f"{option.replace('.init_args', '')}: must name {what}, got {value!r}; {way}")


def objective_of(config: Namespace) -> str:
    """What a run is to minimise, by its configuration: as given, else what its data say."""
    settings = config.model.init_args
    given = settings.get("objective", "mse")
    if given is not None:
        return str(given)
    elsewhere = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    choices = config.data.init_args.get("feedback") == "choices"
    return default_objective(choices, settings.get("engine") == "autograd" or elsewhere)


def _plain(description: Namespace | None) -> dict[str, Any] | None:
    # Through JSON: what the run's config.yaml keeps must be what is given, and YAML has no tuples.
    return None if description is None else json.loads(json.dumps(description.as_dict()))


def _checkpoint_file(given: str, root: Path, folder: str | None) -> Path:
    """Return the file that ``--ckpt_path`` means.

    Args:
        given: a path, or `last` or `best`: of the newest run below `root`.
        root: where runs lie.
        folder: the checkpoint folder, if one was chosen.
    """
    if given in ("last", "best"):
        pattern = f"checkpoints/{given}.ckpt"
        found = [Path(folder) / f"{given}.ckpt"] if folder else [*root.glob(pattern), *root.glob(f"*/{pattern}")]
        found = [path for path in found if path.is_file()]
        if not found:
            raise CheckpointError(f"--ckpt_path {given}: needs a run to go on from, but {folder or root} has none")
        return max(found, key=lambda path: path.stat().st_mtime)
    refuse_address(given)
    return find(Path(given)) if Path(given).is_dir() else Path(given)


@rank_zero_only
def _planned_epochs(run: Path) -> int | None:
    """The number of epochs that a run was started with, by its config; None where that does not say."""
    try:
        text = (run / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r"^trainer:\n(?:  .*\n)*?  max_epochs: (\d{1,9})$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _show_progress() -> None:
    """Let the library's own log lines be seen; only the first process speaks."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    library = logging.getLogger("cflightning")
    if not library.handlers:
        library.addHandler(handler)
        library.setLevel(logging.INFO)


def main(
    args: ArgsType = None, *, started: float | None = None, kind: Callable[..., CFLightningCLI] = CFLightningCLI
) -> CFLightningCLI:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        args: Command-line arguments; None for those of the process.
        started: `time.perf_counter()` when the process began, for the report.
        kind: Class of the command line.

    Returns:
        The CLI, with `trainer`, `model` and `datamodule`.
    """
    _show_progress()
    now = time.perf_counter()
    RunReport.started = now if started is None else started
    RunReport.imported = now
    given = sys.argv[1:] if args is None else args
    CFLightningCLI.only = given[0] if isinstance(given, list) and given else None
    with warnings.catch_warnings(), ExitStack() as held:
        _ignore_what_no_user_can_change()
        return kind(
            RatingTask,
            RatingsDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"default_root_dir": "runs", "log_every_n_steps": 1},
            parser_kwargs={"prog": "python -m cflightning", "exit_on_error": False, "allow_abbrev": False},
            seed_everything_default=0,  # for layers with dropout; data and start have seeds of their own
            auto_configure_optimizers=False,
            args=args,
            held=held,
        )


def _ignore_what_no_user_can_change() -> None:
    """Lightning's own use of deprecated names, and its advertisement."""
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)  # with torch 2.13
    warnings.filterwarnings("ignore", message="Starting from v1.9.0, `tensorboardX`")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")  # of the help of everything
    warnings.filterwarnings("ignore", message="The dirpath has changed from")  # test and predict save no checkpoints
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")  # of callbacks that train
    warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")  # of the fused engine
    warnings.filterwarnings("ignore", message=".*exists and is not empty")  # that is what resuming means
    for name in ("lightning.pytorch", "lightning.fabric"):  # seeds, devices that are not there, tips, paths again
        if (logger := logging.getLogger(name)).level < logging.WARNING:
            logger.setLevel(logging.WARNING)

"""The fit of a trial: without test and report, and without files that remain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import optuna
import yaml
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.trainer import Trainer

from cflightning.cli.studies import refuse_options
from cflightning.cli.training.cli import TrainingCLI
from cflightning.cli.training.defaults import resolve_objective
from cflightning.cli.tune.goals import RANKINGS, RATINGS, Goal
from cflightning.cli.tune.parse import ParsedArgs
from cflightning.cli.tune.ranges import Range
from cflightning.cli.tune.trials import NUM_RUNGS
from cflightning.data.datamodule import RatingsDataModule
from cflightning.data.splits.split import Split
from cflightning.data.table import RatingTable
from cflightning.errors import ConfigError
from cflightning.objectives.registry import find_objectives, solver_names

VAL_FRACTION = 0.1
"""Default validation share of a search; a twentieth, the default of `fit`, is too little to compare many trials."""


@dataclass
class SearchState:
    """State that all fits of one process share.

    Attributes:
        args: Arguments of the user.
        ranges: Option -> range; empty until `probe_search` sets the default ones.
        goal: The goal, which the first fit determines.
        table: The table, which the first fit reads.
        split: Its split.
    """

    args: ParsedArgs
    ranges: dict[str, Range]
    goal: Goal = RATINGS
    table: RatingTable | None = None
    split: Split | None = None

    @property
    def fit_args(self) -> list[str]:
        """Command line of `fit`; the share of validation rows comes first, so that one of the user takes precedence."""
        return ["fit", "--data.split.val_fraction", str(VAL_FRACTION), *self.args.fit_args]

    def share_data(self, data: RatingsDataModule) -> None:
        """Give a data module the table and split of the first fit, so that they are read once."""
        if self.table is None or self.split is None:
            self.table, self.split = data.table, data.split
        data.table, data.split = self.table, self.split


class TrialProgress(Callback):
    """Follows the goal metric from epoch to epoch, and stops a trial that diverges or is pruned.

    Args:
        state: Its goal is the metric.
        trial: Trial of Optuna, which gets the best value at every rung; None for the defaults, which are not pruned.

    Attributes:
        values: Metric of each epoch; the worst value for epochs without validation.
        rungs: Rung of the schedule -> best value so far.
        note: `diverged`, `pruned`, or empty.
    """

    def __init__(self, state: SearchState, trial: optuna.Trial | None) -> None:
        self.state, self.trial = state, trial
        self.values: list[float] = []
        self.rungs: dict[int, float] = {}
        self.note = ""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the rungs that this epoch completes."""
        goal, epoch, planned = self.state.goal, trainer.current_epoch + 1, trainer.max_epochs
        if goal.metric not in trainer.callback_metrics:  # not every epoch has a validation
            self.values.append(goal.cost(math.inf))
            return
        self.values.append(float(trainer.callback_metrics[goal.metric]))
        if not math.isfinite(self.values[-1]):
            self.note = "diverged"
        else:
            reached = NUM_RUNGS * epoch // planned if planned and planned > 0 else epoch
            for rung in range(max(self.rungs, default=0) + 1, reached + 1):
                self.rungs[rung] = min(self.values, key=goal.cost)
                if self.trial is not None:
                    self.trial.report(self.rungs[rung], rung)
                    if self.trial.should_prune() and epoch != planned:
                        self.note = "pruned"
        if self.note:
            trainer.should_stop = True


class TrialCLI(TrainingCLI):
    """A fit with the values of a trial, which measures nothing but the goal.

    Args:
        args: Options of `fit`, after `fit`.
        state: State that all fits of the process share.
        folder: Folder for the files of callbacks.
        trial: Trial of Optuna; None for the defaults.
        started: See `TrainingCLI`.

    Attributes:
        progress: Metrics of the fit.
        settings: Options of the user as a configuration.
    """

    settings: dict[str, object]

    def __init__(
        self,
        args: list[str],
        state: SearchState,
        folder: str,
        trial: optuna.Trial | None = None,
        started: float | None = None,
    ) -> None:
        self.state, self.folder, self.progress = state, folder, TrialProgress(state, trial)
        super().__init__(args, started, save_config=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the options, and keep those of the user as a configuration."""
        super().parse_arguments(parser, args)
        self.settings = yaml.safe_load(self.command_parser.dump(self.config["fit"], skip_default=True)) or {}
        self.settings.pop("config", None)  # the content of the files is in the other settings

    def before_instantiate_classes(self) -> None:
        """Refuse options that make no search, determine the goal, and turn off everything that leaves files."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        refuse_options(
            config,
            self.checkpoint,
            {
                "ckpt_path": "trials do not continue a checkpoint",
                "trainer.fast_dev_run": "that measures nothing",
                "checkpoint.dirpath": "trials keep no checkpoint",
            },
        )
        if trainer.num_nodes != 1 or not _is_one_device(trainer.devices):
            raise ConfigError(
                f"--trainer.devices: must be 1 for tune, got {trainer.devices} on {trainer.num_nodes} node(s); "
                "--jobs shares the trials among processes"
            )
        if config.data.init_args.get("split.val_fraction") == 0 or trainer.limit_val_batches == 0:
            raise ConfigError(
                "--data.split.val_fraction: must be above 0 for tune, got 0; settings are chosen on the validation "
                "part (leave it out for a tenth)"
            )
        objective = resolve_objective(config)
        goal = self.state.goal = RANKINGS if find_objectives(objective).rating is None else RATINGS
        monitored = config.checkpoint.monitor, config.checkpoint.mode
        if monitored not in (RATINGS[:2], goal[:2]):  # the first one is the default
            raise ConfigError(
                f"--checkpoint.monitor: must be {goal.metric} ({goal.mode}) for tune, got {monitored[0]} "
                f"({monitored[1]}); leave it out"
            )
        if "objective" in config.model.init_args:
            # Ranking factors beside a rating model would take time without effect on the goal.
            config.model.init_args.objective = "mse" if goal is RATINGS else objective
        ranking = [name for name in self.state.ranges if name.startswith("model.ranking.")]
        if goal is RATINGS and ranking:
            raise ConfigError(
                f"--{ranking[0]}: must be a value, got a range; tune optimises {goal.metric} with --model.objective "
                f"{objective}, which it does not affect (search with one of {', '.join(solver_names())} alone)"
            )
        if trainer.devices == "auto":
            trainer.devices = 1
        trainer.logger = False
        config.checkpoint.save_top_k = config.last_checkpoint.save_top_k = 0
        for key in ("enable_progress_bar", "enable_model_summary"):
            trainer[key] = False
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: object) -> Trainer:
        """Make a Trainer with the progress callback, on the shared data."""
        self.state.share_data(self.datamodule)
        trainer = self.config_init[self.subcommand]["trainer"]
        trainer["callbacks"] = [*(trainer["callbacks"] or []), self.progress]
        return super().instantiate_trainer(default_root_dir=self.folder, **kwargs)

    def after_fit(self) -> None:
        """Skip test and report."""


def _is_one_device(devices: object) -> bool:
    return str(devices) in ("auto", "1") or (isinstance(devices, list) and len(devices) == 1)
